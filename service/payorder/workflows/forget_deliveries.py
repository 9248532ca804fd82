"""Remove old deliveries that are over, and secrets that sign no more, a few at a time, on every replica that sends."""

import asyncio
from collections.abc import Callable

from payorder.domain.errors import Busy
from payorder.ports.outbox import Outbox
from payorder.workflows.repeat import repeat

_EVERY_SECONDS = 3600.0
# Between two removals, so that nobody else waits for the disk.
_REST_SECONDS = 0.1


class ForgetDeliveries:
    def __init__(self, *, outbox: Outbox, kept_seconds: float, on_fault: Callable[[BaseException], None]) -> None:
        self._outbox = outbox
        self._kept_seconds = kept_seconds
        self._on_fault = on_fault
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`. A database that is away is asked again at the next round."""
        await repeat(self.forget, _EVERY_SECONDS, self._stopping, away=(Busy,), on_fault=self._on_fault)

    def stop(self) -> None:
        self._stopping.set()

    async def forget(self) -> None:
        await self._outbox.forget_secrets()
        after: str | None = ""
        while after is not None and not self._stopping.is_set():
            after = await self._outbox.remove_deliveries(self._kept_seconds, after)
            await asyncio.sleep(_REST_SECONDS)
