"""How a loop that looks for something now and then is told that there is something."""

import asyncio
from contextlib import suppress


class Wakeup:
    """Heard once, however often it rang before somebody listened."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, timeout_seconds: float) -> None:
        """Until it rings, or that long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._rung.wait()
        self._rung.clear()
