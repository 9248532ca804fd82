"""The limits on attempts to pay, asked of every engine: what counts, for how long, and in how many places at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import func, select, update

from conftest import ENGINES, NewMigrated
from payorder.adapters.database.engine import Database
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import events, metadata, payments
from payorder.domain.errors import Busy, RateLimited, Refusal
from payorder.domain.limits import AttemptLimits
from payorder.domain.origin import Origin
from payorder.domain.outcome import Approved, Declined, Failed, Outcome
from payorder.domain.payment import Payment
from support.records import LATER, LIMITS, NO_LIMITS, a_key, a_payment, an_order, by, reply_of

CARD, OTHER_CARD = b"one card, 16 by.", b"another card, 16"
Value = TypeVar("Value")
DECLINE, APPROVE = Declined("lost_card"), Approved("reference")
HOUR = 3600
ONE_REPLICA, REPLICAS = 1, 3


class Replica:
    """A store as one process has it."""

    def __init__(self, database: Database, limits: AttemptLimits) -> None:
        self.store = DatabaseStore(database, reconcile_after_seconds=25, limits=limits, on_change=lambda *_: None)
        self.database = database

    async def order(self, owner: str = "alice") -> str:
        order = an_order(owner=owner)
        await self.store.add_order(order, by(owner), reply_of(order), None)
        return order.id

    async def claim(self, order_id: str, origin: Origin, source: bytes) -> Payment:
        payment = a_payment(an_order(id=order_id), source_fingerprint=source)
        await self.store.claim(payment, origin, None)
        return payment

    async def settle(self, payment: Payment, outcome: Outcome) -> None:
        if isinstance(outcome, Approved):
            outcome = Approved(payment.id)
        ended = payment.after(outcome)
        await self.store.settle(ended, reply_of(ended), LATER)

    async def tried(
        self, outcome: Outcome = DECLINE, *, order: str | None = None, owner: str = "alice", source: bytes = CARD
    ) -> None:
        """A whole attempt, of a new order if none is given."""
        payment = await self.claim(order or await self.order(owner), by(owner), source)
        await self.settle(payment, outcome)

    async def rows(self) -> dict[str, Any]:
        async with self.database.read() as connection:
            return {
                table.name: (await connection.execute(select(table).order_by(*table.primary_key))).all()
                for table in metadata.sorted_tables
            }


@pytest.fixture
def replica(database: Database) -> Replica:
    return Replica(database, LIMITS)


async def refused(work: Awaitable[object]) -> Refusal | None:
    try:
        await work
    except Refusal as refusal:
        return refusal
    return None


async def until_not_busy(work: Callable[[], Awaitable[Value]]) -> Value:
    while True:
        try:
            return await work()
        except Busy:
            await asyncio.sleep(0.1)


async def assert_limited(counted: str, work: Awaitable[object], at_most_seconds: int = HOUR) -> None:
    refusal = await refused(work)
    assert isinstance(refusal, RateLimited), refusal
    assert counted == refusal.counted
    assert 1 <= refusal.retry_after_seconds <= at_most_seconds


async def test_after_five_declines_an_order_rests(replica: Replica) -> None:
    order, other = await replica.order(), await replica.order()
    for number in range(5):
        await replica.tried(order=order, source=bytes([number]) * 16)
    await assert_limited("order", replica.tried(order=order, source=OTHER_CARD))
    await replica.tried(APPROVE, order=other, source=OTHER_CARD)


async def test_a_refused_attempt_writes_nothing(replica: Replica) -> None:
    order = await replica.order()
    for number in range(5):
        await replica.tried(order=order, source=bytes([number]) * 16)
    before = await replica.rows()
    payment = a_payment(an_order(id=order))
    await assert_limited("order", replica.store.claim(payment, by("alice"), a_key()))
    assert before == await replica.rows()


async def test_after_ten_attempts_an_owner_rests_whatever_the_order_the_card_and_the_caller(replica: Replica) -> None:
    service = Origin("shop", acts_for_any_owner=True)
    for number in range(10):
        origin = service if number % 2 else by("alice")
        payment = await replica.claim(await replica.order(), origin, bytes([number]) * 16)
        await replica.settle(payment, DECLINE)
    await assert_limited("owner", replica.tried(source=OTHER_CARD))
    await assert_limited("owner", replica.claim(await replica.order(), service, OTHER_CARD))
    # It is the owner that rests, and not the service.
    payment = await replica.claim(await replica.order("bob"), service, OTHER_CARD)
    await replica.settle(payment, APPROVE)


async def test_after_ten_attempts_a_card_rests_whoever_tries_it(replica: Replica) -> None:
    for number in range(10):
        await replica.tried(owner=f"owner {number}")
    await assert_limited("source", replica.tried(owner="owner 11"))
    await replica.tried(owner="owner 11", source=OTHER_CARD)


async def test_open_payments_count_for_the_card_before_anybody_knows_their_end(replica: Replica) -> None:
    owners = [f"owner {number}" for number in range(10)]
    claimed = [await replica.claim(await replica.order(owner), by(owner), CARD) for owner in owners]
    # It may be over in a moment.
    await assert_limited("source", replica.tried(), at_most_seconds=5)
    await replica.store.mark_unknown(claimed[0].id)
    await assert_limited("source", replica.tried(), at_most_seconds=5)
    await replica.settle(claimed[5], APPROVE)
    await replica.tried(APPROVE)


async def test_open_payments_count_for_the_owner_before_anybody_knows_their_end(replica: Replica) -> None:
    claimed = [await replica.claim(await replica.order(), by("alice"), bytes([number]) * 16) for number in range(10)]
    await assert_limited("owner", replica.tried(source=OTHER_CARD), at_most_seconds=5)
    await replica.store.mark_unknown(claimed[0].id)
    await assert_limited("owner", replica.tried(source=OTHER_CARD), at_most_seconds=5)
    await replica.settle(claimed[5], APPROVE)
    await replica.tried(APPROVE, source=OTHER_CARD)
    # Whoever is declined once does not rest because of what others have open.
    await replica.tried(owner="bob", source=OTHER_CARD)


@pytest.mark.parametrize("outcome", [APPROVE, Failed("the processor was away")], ids=["paid", "not charged"])
async def test_what_is_paid_or_was_not_asked_counts_for_nobody(replica: Replica, outcome: Outcome) -> None:
    order = await replica.order()
    for _ in range(15):
        of_order = order if isinstance(outcome, Failed) else None
        await replica.tried(outcome, order=of_order)


async def test_thousands_of_open_payments_of_one_service_for_its_customers_are_no_abuse(replica: Replica) -> None:
    service = Origin("shop", acts_for_any_owner=True)
    orders = [await replica.order(f"customer {number}") for number in range(60)]
    made = await asyncio.gather(
        *(refused(replica.claim(order, service, bytes([number]) * 16)) for number, order in enumerate(orders))
    )
    assert [None] * 60 == made


async def test_a_replay_is_answered_whatever_the_limits(replica: Replica) -> None:
    order = await replica.order()
    payment = a_payment(an_order(id=order), source_fingerprint=CARD)
    await replica.store.claim(payment, by("alice"), a_key())
    await replica.settle(payment, DECLINE)
    for number in range(9):
        await replica.tried(source=bytes([number]) * 16)
    await assert_limited("owner", replica.tried())
    again = await replica.store.claim(a_payment(an_order(id=order)), by("alice"), a_key())
    assert again is not None
    assert again.resource_id == payment.id


async def test_a_limit_of_zero_is_none(database: Database) -> None:
    replica = Replica(database, NO_LIMITS)
    order = await replica.order()
    for _ in range(12):
        await replica.tried(order=order)


@pytest.mark.parametrize("counted", ["order", "owner", "source"])
async def test_what_is_older_than_the_window_no_longer_counts(database: Database, counted: str) -> None:
    """The rows are made older, by twice the window, than they are."""
    limits = replace(NO_LIMITS, **{f"{'declines' if counted == 'order' else 'attempts'}_per_{counted}": 2})
    replica = Replica(database, limits)
    order = await replica.order()
    for _ in range(2):
        await replica.tried(order=order)
    await assert_limited(counted, replica.tried(order=order))
    await make_older(database, seconds=HOUR - 30)
    await assert_limited(counted, replica.tried(order=order), at_most_seconds=30)
    await make_older(database, seconds=30)
    await replica.tried(order=order)
    # It counts from the beginning again.
    await replica.tried(order=order)
    await assert_limited(counted, replica.tried(order=order))


async def make_older(database: Database, *, seconds: int) -> None:
    orders = metadata.tables["orders"]

    async def change(connection: Any) -> None:
        await connection.execute(update(payments).values(claimed_at=payments.c.claimed_at - seconds * 1000))
        await connection.execute(update(orders).values(declined_at=orders.c.declined_at - seconds * 1000))

    await database.write(change)


async def test_declines_with_a_long_pause_between_them_do_not_add_up(database: Database) -> None:
    replica = Replica(database, replace(NO_LIMITS, declines_per_order=2))
    order = await replica.order()
    for _ in range(4):
        await replica.tried(order=order)
        await make_older(database, seconds=HOUR)


# At once, and in several places


@pytest.fixture(params=ENGINES)
async def replicas(
    request: pytest.FixtureRequest, tmp_path: Path, new_migrated: NewMigrated
) -> AsyncIterator[list[Replica]]:
    url = await new_migrated(request.param, tmp_path)
    async with AsyncExitStack() as stack:
        opened = [Database(url, pool_size=10, pool_timeout_seconds=30) for _ in range(REPLICAS)]
        for each in opened:
            stack.push_async_callback(each.close)
        yield [Replica(each, LIMITS) for each in opened]


async def test_of_a_burst_with_one_card_as_many_get_through_as_the_limit_says(replicas: list[Replica]) -> None:
    orders = [(number, await replicas[0].order(f"owner {number}")) for number in range(150)]
    attempts = [
        refused(replicas[number % REPLICAS].claim(order, by(f"owner {number}"), CARD)) for number, order in orders
    ]
    ends = Counter(type(end) for end in await asyncio.gather(*attempts))
    # Busy is told to who lost against others again and again: nothing happened then.
    assert set(ends) <= {type(None), RateLimited, Busy}
    assert LIMITS.attempts_per_source == ends[type(None)] == await count(replicas[0].database, payments)


async def test_of_a_burst_of_one_owner_as_many_get_through_as_the_limit_says(replicas: list[Replica]) -> None:
    """Each with an order and a card of its own; half of them while others are being declined."""
    orders = [(number, await replicas[0].order()) for number in range(150)]

    async def attempt(number: int, order: str) -> None:
        replica, card = replicas[number % REPLICAS], bytes([number]) * 16
        payment = await until_not_busy(lambda: replica.claim(order, by("alice"), card))
        if number % 2:
            await until_not_busy(lambda: replica.settle(payment, DECLINE))

    ends = Counter(type(end) for end in await asyncio.gather(*(refused(attempt(*each)) for each in orders)))
    assert set(ends) <= {type(None), RateLimited}
    assert LIMITS.attempts_per_owner == ends[type(None)] == await count(replicas[0].database, payments)


async def test_of_a_burst_that_is_declined_at_once_no_more_get_through(replicas: list[Replica]) -> None:
    """Declines come while others are being claimed."""
    orders = [(number, await replicas[0].order(f"owner {number}")) for number in range(60)]
    attempts = [
        refused(replicas[number % REPLICAS].tried(order=order, owner=f"owner {number}")) for number, order in orders
    ]
    ends = Counter(type(end) for end in await asyncio.gather(*attempts))
    assert set(ends) <= {type(None), RateLimited, Busy}
    assert LIMITS.attempts_per_source == ends[type(None)] == await count(replicas[0].database, payments)
    assert LIMITS.attempts_per_source == await count(replicas[0].database, events)


async def test_a_burst_on_one_order_is_declined_five_times(replicas: list[Replica]) -> None:
    order = await replicas[0].order()
    for wave in range(4):
        await asyncio.gather(
            *(
                refused(replicas[number % REPLICAS].tried(order=order, source=bytes([wave * 20 + number]) * 16))
                for number in range(20)
            )
        )
    assert LIMITS.declines_per_order == await count(replicas[0].database, payments)


async def count(database: Database, table: Any) -> int:
    async with database.read() as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())
