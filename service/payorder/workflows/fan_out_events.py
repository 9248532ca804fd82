"""Turn events into deliveries, on every replica that sends: at once for what was changed here, else by looking."""

import asyncio
from collections.abc import Callable

from payorder.domain.errors import Busy
from payorder.ports.outbox import EventBodies, Outbox
from payorder.workflows.wakeup import Wakeup

_AT_ONCE = 500
# Between the beginnings of two rounds: under load a round then has many events, and costs each of them little.
_PACE_SECONDS = 0.1


class FanOutEvents:
    """`on_deliveries` is told when there are new ones, `on_set_aside` of each event that is given up."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        bodies: EventBodies,
        every_seconds: float,
        on_deliveries: Callable[[], None],
        on_set_aside: Callable[[str], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._outbox = outbox
        self._bodies = bodies
        self._every_seconds = every_seconds
        self._on_deliveries = on_deliveries
        self._on_set_aside = on_set_aside
        self._on_fault = on_fault
        self._wakeup = Wakeup()
        self._is_stopping = False

    def wake(self) -> None:
        """There is an event."""
        self._wakeup.ring()

    def stop(self) -> None:
        self._is_stopping = True
        self._wakeup.ring()

    async def run(self) -> None:
        """Until `stop`. A database that is away is asked again at the next round."""
        while not self._is_stopping:
            is_full = await self._round()
            if not is_full and not self._is_stopping:
                await asyncio.sleep(_PACE_SECONDS)
                await self._wakeup.wait(self._every_seconds - _PACE_SECONDS)

    async def _round(self) -> bool:
        """Whether there may be more."""
        try:
            return await self.fan_out() == _AT_ONCE
        except (Busy, TimeoutError):
            return False
        except Exception as fault:  # noqa: BLE001 - a bug is reported, and the loop goes on
            self._on_fault(fault)
            return False

    async def fan_out(self) -> int:
        """One batch; how many events it had."""
        done = await self._outbox.fan_out(self._bodies, _AT_ONCE)
        for fault in done.faults:
            self._on_fault(fault)
        for event_id in done.set_aside:
            self._on_set_aside(event_id)
        if done.deliveries:
            self._on_deliveries()
        return done.events
