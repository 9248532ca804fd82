"""Look at the declines of the last day, and tell when there are too many: every replica looks, and each tells."""

import asyncio
from collections.abc import Callable

from payorder.domain.declines import Attempts, DeclineLimits, are_unusual, expected
from payorder.domain.errors import Busy
from payorder.ports.admin import Statistics
from payorder.ports.store import Store
from payorder.workflows.repeat import repeat


class WatchDeclines:
    """`on_unusual` is told, at each look for as long as it lasts, of the day's attempts and the declines expected."""

    def __init__(
        self,
        *,
        store: Store,
        limits: DeclineLimits,
        every_seconds: float,
        on_unusual: Callable[[Attempts, float], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._limits = limits
        self._every_seconds = every_seconds
        self._on_unusual = on_unusual
        self._on_fault = on_fault
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`. A database that is away is asked again at the next round."""
        await repeat(self.look, self._every_seconds, self._stopping, away=(Busy,), on_fault=self._on_fault)

    def stop(self) -> None:
        self._stopping.set()

    async def look(self) -> None:
        dashboard = await self._store.get_dashboard()
        day, month = _attempts_of(dashboard.last_24_hours), _attempts_of(dashboard.last_30_days)
        before = Attempts(month.answered - day.answered, month.declined - day.declined)
        if are_unusual(day, before, self._limits):
            self._on_unusual(day, expected(day, before))


def _attempts_of(statistics: Statistics) -> Attempts:
    """Without those that the processor was not asked for, which say nothing of a card."""
    declined = sum(statistics.decline_codes.values())
    return Attempts(statistics.payments.get("succeeded", 0) + declined, declined)
