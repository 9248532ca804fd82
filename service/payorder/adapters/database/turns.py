"""Who may have a connection next."""

import asyncio


class Turns:
    """Lets in as many as there are connections, in the order in which they came, and nobody waits longer than that.

    The queue inside a pool lets a newcomer take what was given back before the one who waits has woken up: under load
    some wait forever. Behind this one, no pool has to be waited for. Raises TimeoutError.
    """

    def __init__(self, size: int, timeout_seconds: float) -> None:
        self._free = asyncio.Semaphore(size)
        self._timeout_seconds = timeout_seconds

    async def __aenter__(self) -> None:
        if self._free.locked():
            async with asyncio.timeout(self._timeout_seconds):
                await self._free.acquire()
        else:
            await self._free.acquire()

    async def __aexit__(self, *_fault: object) -> None:
        self._free.release()
