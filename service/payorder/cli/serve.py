"""`payorder serve`: one process that serves, or one that has others serve, or one of those."""

import ctypes
import gc
import resource
import sys
from collections.abc import Coroutine
from typing import Any

from payorder.cli import workers
from payorder.cli.process import run, settings_or_exit, stop_on_signals
from payorder.cli.workers import Worker, Workers
from payorder.config import Settings, SettingsFault
from payorder.observability.logging import CallLog, configure

_PR_SET_DUMPABLE = 4


def serve(count: int) -> None:
    settings = settings_or_exit()
    _run(_serve(settings) if count == 1 else _serve_with_workers(settings, count))


def serve_as_worker(words: tuple[int, int, int, int]) -> None:
    """`words`: what Workers has put on this command line."""
    this = Worker(*words)
    this.end_with_parent()
    settings = settings_or_exit().model_copy(update={"listen": this.address()})
    _run(_serve(settings, this))


async def _serve(settings: Settings, this: Worker | None = None) -> None:
    from payorder.app import running  # noqa: PLC0415 - a parent of workers serves nothing, and needs none of it

    configure(settings.log_level)
    _keep_memory_private()
    _spare_the_collector()
    stop = stop_on_signals()
    async with running(settings, worker=this.number if this else None):
        if this:
            this.tell_serving()
        await stop.wait()


async def _serve_with_workers(settings: Settings, count: int) -> None:
    configure(settings.log_level)
    _keep_memory_private()
    stop = stop_on_signals()
    with workers.reserve(settings.listen) as reserved:
        log = CallLog()
        await Workers(count=count, reserved=reserved, drain_seconds=settings.drain_seconds, log=log).run(stop)


def _run(service: Coroutine[Any, Any, None]) -> None:
    try:
        run(service)
    except (OSError, SettingsFault, ValueError) as fault:
        sys.exit(f"payorder: {fault}")


def _spare_the_collector() -> None:
    """What was imported stays for good, and calls leave few cycles behind: they are looked for less often."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _keep_memory_private() -> None:
    """No core dump, and no debugger of another process of the user: memory holds cards while they are charged."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
