"""What every replica does again and again, for as long as it runs."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress


async def repeat(
    work: Callable[[], Awaitable[None]],
    every_seconds: float,
    stopping: asyncio.Event,
    *,
    away: tuple[type[Exception], ...],
    on_fault: Callable[[BaseException], None],
) -> None:
    """Until `stopping` is set. What is `away`, or took too long, is asked again at the next round."""
    expected: tuple[type[Exception], ...] = (TimeoutError, *away)
    while not stopping.is_set():
        try:
            await work()
        except expected:
            pass
        except Exception as fault:  # noqa: BLE001 - a bug is reported, and the loop goes on
            on_fault(fault)
        with suppress(TimeoutError):
            async with asyncio.timeout(every_seconds):
                await stopping.wait()
