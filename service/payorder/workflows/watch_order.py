"""Watch an order: everything that has happened to it after a number, then what happens, as it happens.

Whoever waits is woken by a change in this process, by a notification of the database, and at the latest by the poll:
one question for all orders that are watched here. What is told is always read from the database, by number.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from payorder.domain.errors import Busy, TooManyWatches
from payorder.domain.order import Order
from payorder.domain.origin import Origin
from payorder.ports.clock import Clock
from payorder.ports.events import EventStore, OrderEvent
from payorder.workflows.repeat import repeat

_EVENTS_READ_MAX = 100


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """`at_most` watches in this process, `per_caller` of one subject; each for `life_seconds`.

    `quiet_seconds`: after so long without news that is told, too.
    """

    at_most: int
    per_caller: int
    life_seconds: float
    quiet_seconds: float
    poll_every_seconds: float


@dataclass(frozen=True, slots=True)
class News:
    """An event, and the order as it is now."""

    event: OrderEvent
    order: Order


@dataclass(slots=True, eq=False)
class Watch:
    """Of one stream: `sequence` is the number of the last event that it was given.

    `woken_for` is the highest number that it was woken for, and has looked for or will: there may be no such event any
    more, because old ones are deleted.
    """

    order_id: str
    sequence: int
    woken_for: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class WatchedOrders:
    """Which orders are watched in this process. Knows nobody, so that whoever writes can be given its `wake`."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}
        self._callers: Counter[str] = Counter()

    @contextmanager
    def watching(self, order_id: str, after: int, caller: str, limits: WatchLimits) -> Iterator[Watch]:
        """Raises TooManyWatches."""
        if self._callers.total() >= limits.at_most or self._callers[caller] >= limits.per_caller:
            raise TooManyWatches
        watch = Watch(order_id, after)
        # Something may have happened already.
        watch.woken.set()
        self._callers[caller] += 1
        self._watches.setdefault(order_id, set()).add(watch)
        try:
            yield watch
        finally:
            self._callers -= Counter({caller: 1})
            self._watches[order_id].discard(watch)
            if not self._watches[order_id]:
                del self._watches[order_id]

    @property
    def order_ids(self) -> list[str]:
        return list(self._watches)

    def wake(self, order_id: str) -> None:
        for watch in self._watches.get(order_id, ()):
            watch.woken.set()

    def wake_behind(self, newest: Mapping[str, int]) -> None:
        """Those who have neither been given the newest event of their order nor looked for it."""
        for order_id, sequence in newest.items():
            for watch in self._watches.get(order_id, ()):
                if max(watch.sequence, watch.woken_for) < sequence:
                    watch.woken_for = sequence
                    watch.woken.set()

    def wake_all(self) -> None:
        for order_id in self._watches:
            self.wake(order_id)


class WatchOrder:
    """From `stop` on, every watch ends and none lasts."""

    def __init__(
        self,
        *,
        store: EventStore,
        watched: WatchedOrders,
        clock: Clock,
        limits: WatchLimits,
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._watched = watched
        self._clock = clock
        self._limits = limits
        self._on_fault = on_fault
        self._stopping = asyncio.Event()

    async def __call__(self, order_id: str, origin: Origin, after: int) -> AsyncGenerator[News | None, None]:
        """None first, when the order may be watched, and then whenever there was no news for a while.

        Raises OrderNotFound, TooManyWatches and Busy, all of them before anything else.
        """
        ends_at = self._clock.uptime_seconds() + self._limits.life_seconds
        with self._watched.watching(order_id, after, origin.actor, self._limits) as watch:
            await self._store.get_order(order_id, origin.owner)
            yield None
            quiet_until = self._clock.uptime_seconds() + self._limits.quiet_seconds
            while not self._stopping.is_set() and (now := self._clock.uptime_seconds()) < ends_at:
                # Who is woken need not find anything, so it is not the waking that ends the quiet.
                if now >= quiet_until:
                    yield None
                    quiet_until = now + self._limits.quiet_seconds
                if await _is_woken(watch, min(ends_at, quiet_until) - now):
                    watch.woken.clear()
                    for news in await self._read(watch, origin):
                        yield news
                        watch.sequence = news.event.sequence
                        quiet_until = self._clock.uptime_seconds() + self._limits.quiet_seconds

    async def run(self) -> None:
        """The poll, until `stop`."""
        every_seconds = self._limits.poll_every_seconds
        await repeat(self._poll, every_seconds, self._stopping, away=(Busy,), on_fault=self._on_fault)

    def stop(self) -> None:
        self._stopping.set()
        self._watched.wake_all()

    async def _read(self, watch: Watch, origin: Origin) -> list[News]:
        """What there is, or none while the database is away: the poll wakes again."""
        try:
            events = await self._store.list_events(watch.order_id, after=watch.sequence, at_most=_EVENTS_READ_MAX)
            if events:
                order = await self._store.get_order(watch.order_id, origin.owner)
                if len(events) == _EVENTS_READ_MAX:
                    watch.woken.set()
                return [News(event, order) for event in events]
        except Busy:
            watch.woken_for = 0
        return []

    async def _poll(self) -> None:
        if order_ids := self._watched.order_ids:
            self._watched.wake_behind(await self._store.newest_sequences(order_ids))


async def _is_woken(watch: Watch, within_seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_seconds):
            await watch.woken.wait()
    return watch.woken.is_set()
