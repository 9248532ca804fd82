"""What every command that works does first: read the settings, and run its work on a loop."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from payorder.config import Settings, SettingsFault


def settings_or_exit() -> Settings:
    """Settings come from the environment."""
    try:
        return Settings.from_env()
    except SettingsFault as fault:
        sys.exit(f"payorder: the settings are not right\n{fault}")


def run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def stop_on_signals() -> asyncio.Event:
    """Set by SIGTERM and Ctrl-C."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    return stop
