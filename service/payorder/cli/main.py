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

from payorder.config import Settings, SettingsFault

_PR_SET_DUMPABLE = 4


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="payorder")
def main() -> None:
    """Take the payment for an existing order, once and only once."""


@main.command()
def serve() -> None:
    """Serve gRPC until SIGTERM or Ctrl-C, then finish what is running."""
    settings = _settings()
    try:
        _run(_serve(settings))
    except (OSError, SettingsFault, ValueError) as fault:
        sys.exit(f"payorder: {fault}")


@main.command()
def migrate() -> None:
    """Bring the database schema up to date."""
    _run(_migrate(_settings()))


async def _serve(settings: Settings) -> None:
    from payorder.app import running  # noqa: PLC0415 - the commands that serve nothing start without it
    from payorder.observability.logging import configure  # noqa: PLC0415 - as above

    configure(settings.log_level)
    _keep_memory_private()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    async with running(settings):
        await stop.wait()


async def _migrate(settings: Settings) -> None:
    from payorder.adapters.database import migrate as migrations  # noqa: PLC0415 - as above
    from payorder.adapters.database.engine import Database  # noqa: PLC0415 - as above

    database = Database(settings.database_url, pool_size=1, pool_timeout_seconds=settings.database_pool_timeout_seconds)
    try:
        await migrations.upgrade(database)
    finally:
        await database.close()


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


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)
