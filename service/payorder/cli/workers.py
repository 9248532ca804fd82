"""Several workers on one port: processes that this one starts, watches and ends, while it serves nothing itself.

reserve   the port is taken alone, so that a second service on it is refused; only then may the workers share it.
keep      a worker that ends is started again; one that has never served ends them all.
end       SIGTERM reaches every worker, and each drains as a service by itself does.

A worker is a fresh process, because gRPC does not survive a fork; the kernel spreads connections over them.
"""

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

from payorder.config import SettingsFault
from payorder.observability.logging import CallLog

_PR_SET_PDEATHSIG = 1
_SERVING = b"\n"
_BACKOFF_SECONDS_MIN = 0.1
_BACKOFF_SECONDS_MAX = 10.0
# A worker that lasted this long has not failed because it was started.
_STEADY_SECONDS = 10.0
# What a drained worker may take besides to close its connections.
_CLOSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker as its parent describes it to it: `reserved` and `ready` are descriptors of sockets it inherits."""

    number: int
    parent_process_id: int
    reserved: int
    ready: int

    def command(self) -> list[str]:
        words = (self.number, self.parent_process_id, self.reserved, self.ready)
        return [sys.executable, "-m", "payorder", "worker", *map(str, words)]

    def address(self) -> str:
        """Where to listen: the reserved address, which nobody without its socket can name."""
        with socket.socket(fileno=os.dup(self.reserved)) as reserved:
            host, port = reserved.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def tell_serving(self) -> None:
        os.write(self.ready, _SERVING)

    def end_with_parent(self) -> None:
        """From now on the kernel sends SIGTERM when the parent ends, however it does."""
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self.parent_process_id:
            sys.exit("payorder: the parent of this worker has ended")


def reserve(listen: str) -> socket.socket:
    """A socket that holds the address for workers to share and for nobody else. Raises OSError, SettingsFault."""
    if sys.platform != "linux":
        raise OSError("--workers: only Linux spreads the connections of one port over several processes")
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise SettingsFault("PAYORDER_LISTEN: several workers need host:port")
    family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    reserved = socket.socket(family, kind)
    try:
        _take_alone(reserved, address)
    except OSError as error:
        reserved.close()
        raise OSError(f"cannot listen on {listen}") from error
    return reserved


def _take_alone(reserved: socket.socket, address: tuple[object, ...]) -> None:
    if address[1] == 0:
        reserved.bind(address)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return
    # A port is free while connections of its last service are still ending: that needs SO_REUSEADDR, under which two
    # may bind, but only one may listen. It listens for as long as it takes to forbid the second.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(address)
    reserved.listen(0)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.shutdown(socket.SHUT_RDWR)


class Workers:
    """Keeps `count` workers serving on a reserved port; `drain_seconds` is what each of them is given to end."""

    def __init__(self, *, count: int, reserved: socket.socket, drain_seconds: float, log: CallLog) -> None:
        self._count = count
        self._reserved = reserved
        self._end_timeout_seconds = drain_seconds + _CLOSE_SECONDS
        self._log = log

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; no worker is left. Raises ChildProcessError when one cannot start."""
        keeping = [asyncio.create_task(self._keep(number)) for number in range(1, self._count + 1)]
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({stopping, *keeping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, *keeping):
            task.cancel()
        await asyncio.gather(stopping, *keeping, return_exceptions=True)
        for task in done:
            await task

    async def _keep(self, number: int) -> None:
        """One worker after another under the same number."""
        has_served, backoff_seconds = False, _BACKOFF_SECONDS_MIN
        while True:
            started = monotonic()
            async with self._started(number) as (process, ready):
                has_served |= await ready.read(1) == _SERVING
                status = await process.wait()
            if not has_served:
                # Its own words are in the log.
                raise ChildProcessError(f"worker {number} ended with status {status} before it served")
            if monotonic() - started > _STEADY_SECONDS:
                backoff_seconds = _BACKOFF_SECONDS_MIN
            self._log.event("worker ended", worker=number, status=status, restarts_in_ms=round(backoff_seconds * 1000))
            await asyncio.sleep(backoff_seconds)
            backoff_seconds = min(2 * backoff_seconds, _BACKOFF_SECONDS_MAX)

    @asynccontextmanager
    async def _started(self, number: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
        """A worker, and the stream on which it tells that it serves; it has ended when the block has."""
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        with theirs:
            worker = Worker(number, os.getpid(), self._reserved.fileno(), theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                *worker.command(), stdin=asyncio.subprocess.DEVNULL, pass_fds=(worker.reserved, worker.ready)
            )
        self._log.event("worker started", worker=number, pid=process.pid)
        try:
            yield process, reader
        finally:
            writer.close()
            await self._end(process)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self._end_timeout_seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
