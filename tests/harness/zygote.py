"""`python -m harness.zygote FD`: imports the service once, then forks a real process for each request.

The process is the service, or the processor that the service talks to.

Requests and reports are JSON datagrams on the socket FD. Children report on it too, so that a process which is about to
kill itself can still say where. gRPC must not be touched before the fork: its threads do not survive one.
"""

import asyncio
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

import payorder.app
from harness import crash_points, variants
from harness.orphans import die_with_parent
from harness.processor import plugin, server  # noqa: F401 - imported here, so that no child has to
from harness.relay import variants as relay_variants
from payments.v1.payment_pb2 import PaymentDetails
from payments.v1.payment_service_pb2 import PayOrderRequest
from payorder.adapters.receivers import client  # noqa: F401 - the same
from payorder.config import Settings
from payorder.domain.errors import Refusal
from payorder.edge.validation import validate
from payorder.observability.logging import configure


def main() -> None:
    die_with_parent()
    reports = socket.socket(fileno=int(sys.argv[1]))
    _warm_up()
    gc.collect()
    gc.freeze()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    _report(reports, event="up")
    while True:
        ready, _, _ = select.select([reports, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(reports)
        if reports in ready:
            request = reports.recv(1 << 16)
            if not request:
                return
            _fork(reports, json.loads(request))


def _warm_up() -> None:
    """What the first call of a process would otherwise pay for: the validation rules are compiled when first used."""
    with suppress(Refusal):
        validate(PayOrderRequest(order_id="-", payment=PaymentDetails(amount="1", currency="GBP")))


def _fork(reports: socket.socket, request: dict[str, Any]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            _settle_in(request)
            if "processor" in request:
                _be_the_processor(reports, **request["processor"])
            else:
                _be_a_service(reports, request)
        except BaseException:  # noqa: BLE001 - a child must never return into the zygote's loop
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(1)
    _report(reports, event="started", start=request["start"], pid=pid)


def _reap(reports: socket.socket) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _report(reports, event="exited", pid=pid, status=os.waitstatus_to_exitcode(status))


def _settle_in(request: dict[str, Any]) -> None:
    die_with_parent()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _be_the_processor(reports: socket.socket, ledger: str, seed: int, mixes: dict[str, dict[str, int]]) -> None:
    def tell(port: int) -> None:
        _report(reports, event="ready", pid=os.getpid(), port=port)

    asyncio.run(server.serve(Path(ledger), seed, mixes, tell))


def _be_a_service(reports: socket.socket, request: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path.append(request["plugins"])
    crash_points.watch_the_database()
    crash_points.watch_the_hot_path()
    if request["variant"]:
        _apply(request["variant"])
    if arming := request["arming"]:
        crash_points.arm(arming["point"], nth=arming["nth"], action=arming["action"], reports=reports)
    configure("INFO")
    uvloop.run(_serve(reports))


def _apply(variant: str) -> None:
    if variant in variants.VARIANTS:
        variants.VARIANTS[variant].apply()
    else:
        relay_variants.VARIANTS[variant][0]()


async def _serve(reports: socket.socket) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with payorder.app.running(Settings.from_env()) as app:
        _report(reports, event="ready", pid=os.getpid(), port=app.port)
        await stop.wait()
    sys.stdout.flush()
    os._exit(0)


def _report(reports: socket.socket, **facts: object) -> None:
    with suppress(BrokenPipeError):
        reports.send(json.dumps(facts).encode())


if __name__ == "__main__":
    main()
