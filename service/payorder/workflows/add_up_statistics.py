"""Add up what the dashboard shows, again and again: every replica tries, and the database lets one of them."""

import asyncio
from collections.abc import Callable

from payorder.domain.errors import Busy
from payorder.ports.store import Interval, Store
from payorder.workflows.repeat import repeat

_TIMES = Interval(every_seconds=600.0, settled_after_seconds=60.0)
_LOOK_SECONDS = 30.0


class AddUpStatistics:
    def __init__(self, *, store: Store, on_fault: Callable[[BaseException], None]) -> None:
        self._store = store
        self._on_fault = on_fault
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`. A database that is away is asked again at the next round."""
        await repeat(self.add_up, _LOOK_SECONDS, self._stopping, away=(Busy,), on_fault=self._on_fault)

    def stop(self) -> None:
        self._stopping.set()

    async def add_up(self) -> None:
        """Everything that is due: after a long time there is more than one sum."""
        while not self._stopping.is_set() and await self._store.add_up_statistics(_TIMES):
            pass
