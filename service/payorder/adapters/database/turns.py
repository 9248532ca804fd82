"""Who may have a connection next."""

import asyncio

from payorder.domain.errors import Busy


class Turns:
    """Lets in as many as there are connections, in the order in which they came, and nobody waits longer than that.

    The queue inside a pool lets a newcomer take what was given back before the one who waits has woken up: under load
    some wait forever. Behind this one, no pool has to be waited for.
    """

    def __init__(self, size: int, timeout_seconds: float) -> None:
        self._free = asyncio.Semaphore(size)
        self._timeout_seconds = timeout_seconds

    async def take(self) -> None:
        """Raises Busy when it has taken too long."""
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise Busy from error

    def give_back(self) -> None:
        self._free.release()
