"""Watches of an order whose newest events were deleted: quiet like any other, and nothing that follows is left out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from payorder.adapters.database.engine import Database
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.system import SystemClock, new_id
from payorder.domain.errors import Busy
from payorder.domain.order import Order
from payorder.ports.events import OrderEvent
from payorder.ports.store import CancelRequest
from payorder.workflows.watch_order import News, WatchedOrders, WatchLimits, WatchOrder
from support.records import LATER, NO_LIMITS, by, reply_of
from support.webhooks import execute, pay

POLL_SECONDS, QUIET_SECONDS = 0.02, 0.2
LIMITS = WatchLimits(
    at_most=10, per_caller=10, life_seconds=60, quiet_seconds=QUIET_SECONDS, poll_every_seconds=POLL_SECONDS
)


class Read(DatabaseStore):
    """Counts how often events are read, and is busy the first times, as often as it is told."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, reconcile_after_seconds=25, limits=NO_LIMITS, on_change=lambda *_: None)
        self.reads = 0
        self.busy = 0

    async def list_events(self, order_id: str, *, after: int, at_most: int) -> list[OrderEvent]:
        self.reads += 1
        if self.reads <= self.busy:
            raise Busy
        return await super().list_events(order_id, after=after, at_most=at_most)


@pytest.fixture
def store(database: Database) -> Read:
    return Read(database)


@asynccontextmanager
async def watching(store: Read, order: Order, after: int = 0) -> AsyncIterator[AsyncIterator[News | None]]:
    """Only the poll wakes it: nothing that is written here is told otherwise."""
    watch = WatchOrder(store=store, watched=WatchedOrders(), clock=SystemClock(), limits=LIMITS, on_fault=fail)
    polling = asyncio.create_task(watch.run())
    async with aclosing(watch(order.id, by("alice"), after)) as all_news:
        assert await anext(all_news) is None
        yield all_news
    watch.stop()
    await polling


def fail(fault: BaseException) -> None:
    raise fault


async def next_of(all_news: AsyncIterator[News | None]) -> News | None:
    async with asyncio.timeout(30):
        return await anext(all_news)


async def next_sequence(all_news: AsyncIterator[News | None]) -> int:
    while (news := await next_of(all_news)) is None:
        pass
    return news.event.sequence


async def cancel(store: Read, order: Order) -> None:
    """Its third event."""
    await store.cancel_order(CancelRequest(order.id, by("alice"), new_id(), LATER), reply_of, None)


async def paid_and_forgotten(store: Read, database: Database, kept: int) -> Order:
    """Two things have happened to it, of which the first so many are still there."""
    order, _ = await pay(store)
    await execute(database, "DELETE FROM events WHERE seq > :kept", kept=kept)
    return order


@pytest.mark.parametrize("kept", [0, 1])
async def test_it_is_told_that_there_is_no_news_and_not_read_again_at_every_poll(
    store: Read, database: Database, kept: int
) -> None:
    order = await paid_and_forgotten(store, database, kept)
    async with watching(store, order, after=kept) as all_news:
        assert [None] * 3 == [await next_of(all_news) for _ in range(3)]
    # At the beginning, and when the poll had found the number, if that was not before.
    assert store.reads <= 2


async def test_it_is_told_what_happens_next(store: Read, database: Database) -> None:
    order = await paid_and_forgotten(store, database, kept=1)
    async with watching(store, order) as all_news:
        assert (1, None) == (await next_sequence(all_news), await next_of(all_news))
        await cancel(store, order)
        assert 3 == await next_sequence(all_news)


@pytest.mark.parametrize("busy", [1, 2, 3])
async def test_what_could_not_be_read_when_it_was_found_is_read_later(store: Read, busy: int) -> None:
    order, _ = await pay(store)
    store.busy = busy
    async with watching(store, order) as all_news:
        assert [1, 2] == [await next_sequence(all_news) for _ in range(2)]
