"""The `payorder` command: thin subcommands around the application. Settings come from the environment."""

import asyncio
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import click

from payorder.cli import workers
from payorder.cli.workers import Worker, WorkerFault, Workers
from payorder.config import Settings, SettingsFault
from payorder.observability.logging import CallLog, configure

_PR_SET_DUMPABLE = 4


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="payorder")
def main() -> None:
    """Take the payment for an existing order, once and only once."""


@main.command()
@click.option(
    "--workers",
    "count",
    type=click.IntRange(1, workers.COUNT_MAX),
    default=1,
    show_default=True,
    help="How many processes share the port (Linux).",
)
def serve(count: int) -> None:
    """Serve gRPC until SIGTERM or Ctrl-C, then finish what is running."""
    settings = _settings()
    _run_service(_serve(settings) if count == 1 else _serve_with_workers(settings, count))


@main.command(hidden=True)
@click.argument("words", type=int, nargs=4)
def worker(words: tuple[int, int, int, int]) -> None:
    """One process of `serve --workers`, which alone can start it."""
    this = Worker(*words)
    this.end_with_parent()
    settings = _settings().model_copy(update={"listen": this.address()})
    _run_service(_serve(settings, this))


@main.command()
def migrate() -> None:
    """Bring the database schema up to date."""
    _run(_migrate(_settings()))


async def _serve(settings: Settings, this: Worker | None = None) -> None:
    from payorder.app import running  # noqa: PLC0415 - the commands that serve nothing start without it

    configure(settings.log_level)
    _keep_memory_private()
    stop = _stop_on_signals()
    async with running(settings, worker=this.number if this else None):
        if this:
            this.tell_serving()
        await stop.wait()


async def _serve_with_workers(settings: Settings, count: int) -> None:
    configure(settings.log_level)
    _keep_memory_private()
    stop = _stop_on_signals()
    with workers.reserve(settings.listen) as reserved:
        log = CallLog()
        await Workers(count=count, reserved=reserved, drain_seconds=settings.drain_seconds, log=log).run(stop)


async def _migrate(settings: Settings) -> None:
    from payorder.adapters.database import migrate as migrations  # noqa: PLC0415 - as above
    from payorder.adapters.database.engine import Database  # noqa: PLC0415 - as above

    database = Database(settings.database_url, pool_size=1, pool_timeout_seconds=settings.database_pool_timeout_seconds)
    try:
        await migrations.upgrade(database)
    finally:
        await database.close()


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    return stop


def _keep_memory_private() -> None:
    """No core dump, and no debugger of another process of the user: memory holds cards while they are charged."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


def _settings() -> Settings:
    try:
        return Settings.from_env(os.environ)
    except SettingsFault as fault:
        sys.exit(f"payorder: the settings are not right\n{fault}")


def _run_service(service: Coroutine[Any, Any, None]) -> None:
    try:
        _run(service)
    except (OSError, SettingsFault, ValueError, WorkerFault) as fault:
        sys.exit(f"payorder: {fault}")


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)
