"""Dispatchers of events on the stage, and what is made of events before there are any."""

import asyncio
import sys

from bench.measure import Mismatch
from bench.meter import Meter
from bench.stage import Stage

DISPATCHERS = 2
# What makes receivers on this machine acceptable.
LOCAL = {
    "WEBHOOK_NETWORKS_ALLOWED": "127.0.0.0/8",
    "WEBHOOK_NETWORKS_ALLOWED_TO": "everybody",
    "WEBHOOK_PORTS": "any",
}
# Events are written past the services here, so that nobody tells them.
_LOOKING = {"WEBHOOK_POLL_SECONDS": "0.1"}


async def dispatchers(stage: Stage, url: str) -> dict[str, Meter]:
    """By their names."""
    made: dict[str, Meter] = {}
    for _ in range(DISPATCHERS):
        name = f"dispatcher {len(made)} of {url.rpartition('/')[2]}"
        made[name] = (await stage.payorder(name, url, **LOCAL, **_LOOKING)).meters["server"]
    return made


async def fan_out_here(url: str) -> None:
    """Make deliveries of all events."""
    await _run("bench.fan_out", url)


async def fail_here(url: str) -> None:
    """Let every delivery fail once, to wait for its retry."""
    await _run("bench.fail_once", url)


async def _run(module: str, url: str) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, url)
    if await process.wait() != 0:
        raise Mismatch(f"{module} gave up")
