"""Whatever is left open is settled by asking, and never by guessing."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from payorder.adapters.database.engine import Database
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.processors.sandbox import Sandbox
from payorder.adapters.system import SystemClock, new_id
from payorder.domain.errors import OrderAlreadyPaid
from payorder.domain.finding import Finding
from payorder.domain.money import Currency, Money
from payorder.domain.order import Order
from payorder.domain.outcome import Approved, Declined, Failed, Outcome, Unknown
from payorder.domain.payment import Payment
from payorder.domain.secret import Secret
from payorder.domain.source import Address, Card
from payorder.domain.states import OrderStatus, PaymentStatus
from payorder.edge.replies import to_order_reply, to_payment_reply
from payorder.ports.processor import Charge
from payorder.ports.store import Cancelled, CancelRequest
from payorder.workflows.reconcile import Reconcile, ReconcileLimits
from support.records import NO_LIMITS, by

TOTAL = Money(4999, Currency("GBP", 2))
CARD = Card("J. Doe", Secret("4242424242424242"), None, 12, 2025, Address())


class Silent(Sandbox):
    """A sandbox that, while it is silent, does what it is asked and does not answer."""

    def __init__(self) -> None:
        super().__init__(latency_seconds=0, keys_max=1000)
        self.is_silent = False
        self.declines_refunds = False

    async def cancel(self, key: str, amount: Money) -> Outcome:
        outcome = await super().cancel(key, amount)
        return Unknown() if self.is_silent else outcome

    async def refund(self, key: str, reference: str, amount: Money) -> Outcome:
        outcome = Declined("refused") if self.declines_refunds else await super().refund(key, reference, amount)
        return Unknown() if self.is_silent else outcome


@pytest.fixture
def processor() -> Silent:
    return Silent()


@pytest.fixture
def due_at_once(database: Database) -> DatabaseStore:
    return DatabaseStore(database, reconcile_after_seconds=0, limits=NO_LIMITS, on_change=ignore)


@pytest.fixture
def reconcile(due_at_once: DatabaseStore, processor: Silent) -> Reconcile:
    return reconcile_with(due_at_once, processor, [].append)


def ignore(_what: str, _of: str, _order: str) -> None:
    """Nobody listens."""


def limits_of(processor_name: str) -> ReconcileLimits:
    return ReconcileLimits(
        processor_name, every_seconds=0.01, timeout_seconds=2, compare_every_seconds=1, compare_timeout_seconds=1
    )


def reconcile_with(
    store: DatabaseStore,
    processor: Silent,
    on_finding: Callable[[Finding], None],
    *,
    processor_name: str = "sandbox",
) -> Reconcile:
    faults: list[BaseException] = []
    return Reconcile(
        store=store,
        processor=processor,
        clock=SystemClock(),
        render=to_payment_reply,
        limits=limits_of(processor_name),
        on_finding=on_finding,
        on_fault=faults.append,
    )


async def claimed(store: DatabaseStore) -> Payment:
    """An order, and a payment of it that somebody has claimed and then died."""
    now = datetime.now(UTC)
    order = Order(new_id(), "alice", OrderStatus.PLACED, TOTAL, None, None, {}, now, now)
    await store.add_order(order, by(order.owner), to_order_reply(order), None)
    return await claimed_again(store, order.id)


async def claimed_again(store: DatabaseStore, order_id: str) -> Payment:
    payment = Payment(
        new_id(), order_id, TOTAL, CARD.masked(), PaymentStatus.PROCESSING, datetime.now(UTC), processor="sandbox"
    )
    assert await store.claim(payment, by("alice"), None) is None
    return payment


async def rows(database: Database, statement: str) -> list[Any]:
    async with database.read() as connection:
        return list(await connection.execute(text(statement)))


async def test_a_claim_that_was_never_charged_fails_and_frees_the_order(
    due_at_once: DatabaseStore, reconcile: Reconcile
) -> None:
    payment = await claimed(due_at_once)
    await reconcile.settle_open()
    settled = await due_at_once.get_payment(payment.id, "alice")
    assert (PaymentStatus.FAILED, "cancelled") == (settled.status, settled.failure)
    await claimed_again(due_at_once, payment.order_id)


async def test_a_charge_whose_process_died_is_found(
    due_at_once: DatabaseStore, processor: Silent, reconcile: Reconcile
) -> None:
    payment = await claimed(due_at_once)
    charged = await processor.charge(payment.id, TOTAL, CARD)
    await reconcile.settle_open()
    settled = await due_at_once.get_payment(payment.id, "alice")
    assert Approved(settled.reference or "") == charged
    assert OrderStatus.APPROVED == (await due_at_once.get_order(payment.order_id, "alice")).status


async def test_a_decline_whose_process_died_is_found(
    due_at_once: DatabaseStore, processor: Silent, reconcile: Reconcile
) -> None:
    payment = await claimed(due_at_once)
    declined = Card("J. Doe", Secret("4000000000009995"), None, 12, 2025, Address())
    assert Declined("insufficient_funds") == await processor.charge(payment.id, TOTAL, declined)
    await reconcile.settle_open()
    assert "insufficient_funds" == (await due_at_once.get_payment(payment.id, "alice")).decline_code


async def test_after_the_fence_a_sleeper_can_no_longer_charge(
    due_at_once: DatabaseStore, processor: Silent, reconcile: Reconcile
) -> None:
    payment = await claimed(due_at_once)
    await reconcile.settle_open()
    assert Failed("cancelled") == await processor.charge(payment.id, TOTAL, CARD)
    second = await claimed_again(due_at_once, payment.order_id)
    assert isinstance(await processor.charge(second.id, TOTAL, CARD), Approved)
    assert [second.id] == [charge.key for charge in await processor.charges(datetime.now(UTC))]


async def test_a_payment_that_nobody_answers_for_stays_open_until_somebody_does(
    database: Database, due_at_once: DatabaseStore, processor: Silent, reconcile: Reconcile
) -> None:
    payment = await claimed(due_at_once)
    await processor.charge(payment.id, TOTAL, CARD)
    processor.is_silent = True
    await reconcile.settle_open()
    assert PaymentStatus.PROCESSING == (await due_at_once.get_payment(payment.id, "alice")).status
    processor.is_silent = False
    await make_everything_due(database)
    await reconcile.settle_open()
    assert PaymentStatus.SUCCEEDED == (await due_at_once.get_payment(payment.id, "alice")).status


async def test_many_reconcilers_settle_each_payment_once(
    database: Database, due_at_once: DatabaseStore, processor: Silent
) -> None:
    payments = [await claimed(due_at_once) for _ in range(20)]
    for payment in payments[::2]:
        await processor.charge(payment.id, TOTAL, CARD)
    crowd = [reconcile_with(due_at_once, processor, [].append) for _ in range(5)]
    await asyncio.gather(*(each.settle_open() for each in crowd))
    counted = await rows(database, "SELECT type, count(*) FROM events GROUP BY type ORDER BY type")
    assert [("order.approved", 10), ("payment.failed", 10), ("payment.succeeded", 10)] == [
        tuple(row) for row in counted
    ]


async def test_one_round_settles_everything_that_is_due(
    database: Database, due_at_once: DatabaseStore, reconcile: Reconcile
) -> None:
    """More than is leased at once: after an outage, thousands may be open."""
    await asyncio.gather(*(claimed(due_at_once) for _ in range(110)))
    await reconcile.settle_open()
    assert [(110,)] == [
        tuple(row) for row in await rows(database, "SELECT count(*) FROM payments WHERE status = 'failed'")
    ]


class Books(Silent):
    """Writes down from when on it was asked for its charges."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[datetime] = []

    async def charges(self, since: datetime) -> list[Charge]:
        self.asked.append(since)
        return await super().charges(since)


async def test_books_are_compared_for_a_day_at_first_and_then_for_what_is_new(due_at_once: DatabaseStore) -> None:
    books = Books()
    reconcile = reconcile_with(due_at_once, books, [].append)
    for _ in range(3):
        await reconcile.compare_books()
    ages = [datetime.now(UTC) - since for since in books.asked]
    assert [True, False, False] == [age > timedelta(days=1) for age in ages]
    assert all(age > timedelta(minutes=10) for age in ages), "neither book is written at once"


async def test_who_settles_late_gets_the_winners_reply(due_at_once: DatabaseStore) -> None:
    payment = await claimed(due_at_once)
    won = payment.after(Approved("first"))
    late = payment.after(Declined("too_late"))
    first = await due_at_once.settle(won, to_payment_reply(won), datetime.now(UTC))
    assert first == await due_at_once.settle(late, to_payment_reply(late), datetime.now(UTC))


async def test_a_payment_that_is_not_due_is_left_to_its_own_process(database: Database, processor: Silent) -> None:
    store = DatabaseStore(database, reconcile_after_seconds=60, limits=NO_LIMITS, on_change=ignore)
    payment = await claimed(store)
    await reconcile_with(store, processor, [].append).settle_open()
    assert PaymentStatus.PROCESSING == (await store.get_payment(payment.id, "alice")).status
    await store.mark_unknown(payment.id)
    await reconcile_with(store, processor, [].append).settle_open()
    assert PaymentStatus.FAILED == (await store.get_payment(payment.id, "alice")).status


async def test_a_cancelled_paid_order_is_refunded_once_whoever_dies(
    database: Database, due_at_once: DatabaseStore, processor: Silent, reconcile: Reconcile
) -> None:
    refund = await refund_of_a_cancelled_order(due_at_once, processor, reconcile)
    processor.is_silent = True
    await reconcile.refund(refund)
    assert [(4999, 0)] == await reserved_and_refunded(database)
    processor.is_silent = False
    await make_everything_due(database)
    await asyncio.gather(*(reconcile.settle_open() for _ in range(3)))
    await reconcile.refund(refund)
    assert [(0, 4999)] == await reserved_and_refunded(database)
    assert 1 == len(await rows(database, "SELECT 1 FROM events WHERE type = 'refund.succeeded'"))


async def test_a_cancelled_order_stays_cancelled_and_is_not_paid_again(
    due_at_once: DatabaseStore, processor: Silent, reconcile: Reconcile
) -> None:
    refund = await refund_of_a_cancelled_order(due_at_once, processor, reconcile)
    request = CancelRequest(refund.order_id, by("alice"), new_id(), datetime.now(UTC))
    again = await due_at_once.cancel_order(request, to_order_reply, None)
    assert isinstance(again, Cancelled)
    assert (OrderStatus.CANCELLED, None) == (again.order.status, again.refund)


async def test_the_comparison_of_books_finds_each_difference_once(
    due_at_once: DatabaseStore, processor: Silent, reconcile: Reconcile
) -> None:
    fine, other_amount, failed = [await claimed(due_at_once) for _ in range(3)]
    for payment, amount in ((fine, TOTAL), (other_amount, Money(1, TOTAL.currency))):
        await processor.charge(payment.id, amount, CARD)
    await reconcile.settle_open()
    forged = [Charge("no-such-payment", "a", TOTAL), Charge(failed.id, "b", TOTAL), Charge(fine.id, "c", TOTAL)]
    found = await due_at_once.compare([*await processor.charges(datetime.now(UTC)), *forged])
    assert {
        ("charge_without_payment", "no-such-payment"),
        ("charge_of_failed_payment", failed.id),
        ("reference_differs", fine.id),
        ("amount_differs", other_amount.id),
    } == {(finding.kind, finding.key) for finding in found}
    assert [] == await due_at_once.compare(forged)


async def test_a_charge_that_is_listed_twice_is_found_once(due_at_once: DatabaseStore) -> None:
    forged = [Charge("no-such-payment", "a", TOTAL), Charge("nor-this", "b", TOTAL)]
    found = await asyncio.gather(*(due_at_once.compare([*forged, *forged]) for _ in range(4)))
    assert ["a", "b"] == sorted(finding.reference for some in found for finding in some)


async def test_a_refund_that_is_declined_is_a_finding(
    database: Database, due_at_once: DatabaseStore, processor: Silent, reconcile: Reconcile
) -> None:
    refund = await refund_of_a_cancelled_order(due_at_once, processor, reconcile)
    findings: list[Finding] = []
    processor.declines_refunds = True
    await reconcile_with(due_at_once, processor, findings.append).refund(refund)
    assert ["refund_declined"] == [finding.kind for finding in findings]
    assert [("refund_declined", refund.payment_id)] == [
        tuple(row) for row in await rows(database, "SELECT kind, payment_id FROM findings")
    ]
    assert [(0, 0)] == await reserved_and_refunded(database)


async def test_what_another_processor_was_asked_for_is_left_to_it(
    due_at_once: DatabaseStore, processor: Silent
) -> None:
    payment = await claimed(due_at_once)
    await processor.charge(payment.id, TOTAL, CARD)
    await reconcile_with(due_at_once, Silent(), [].append, processor_name="other").settle_open()
    assert PaymentStatus.PROCESSING == (await due_at_once.get_payment(payment.id, "alice")).status


async def test_what_another_processor_took_is_left_to_it_to_give_back(
    database: Database, due_at_once: DatabaseStore, processor: Silent, reconcile: Reconcile
) -> None:
    refund = await refund_of_a_cancelled_order(due_at_once, processor, reconcile)
    findings: list[Finding] = []
    other = Silent()
    other.declines_refunds = True
    elsewhere = reconcile_with(due_at_once, other, findings.append, processor_name="other")
    await elsewhere.refund(refund)
    await make_everything_due(database)
    await elsewhere.settle_open()
    assert ([], [(4999, 0)]) == (findings, await reserved_and_refunded(database))
    await reconcile.settle_open()
    assert [(0, 4999)] == await reserved_and_refunded(database)


async def test_however_often_a_payment_was_asked_after_the_others_are_not_held_up(
    database: Database, due_at_once: DatabaseStore, processor: Silent, reconcile: Reconcile
) -> None:
    old, new = await claimed(due_at_once), await claimed(due_at_once)
    processor.is_silent = True
    await database.write(lambda connection: connection.execute(text("UPDATE payments SET poll_attempts = 40000")))
    await reconcile.settle_open()
    processor.is_silent = False
    await make_everything_due(database)
    await reconcile.settle_open()
    assert {PaymentStatus.FAILED} == {(await due_at_once.get_payment(each.id, "alice")).status for each in (old, new)}


async def test_a_charge_of_another_amount_is_never_booked_as_paid(
    due_at_once: DatabaseStore, processor: Silent, reconcile: Reconcile
) -> None:
    payment = await claimed(due_at_once)
    await processor.charge(payment.id, Money(1, TOTAL.currency), CARD)
    await reconcile.settle_open()
    assert PaymentStatus.PROCESSING == (await due_at_once.get_payment(payment.id, "alice")).status


async def refund_of_a_cancelled_order(store: DatabaseStore, processor: Silent, reconcile: Reconcile) -> Any:
    payment = await claimed(store)
    await processor.charge(payment.id, TOTAL, CARD)
    await reconcile.settle_open()
    with pytest.raises(OrderAlreadyPaid):
        await claimed_again(store, payment.order_id)
    request = CancelRequest(payment.order_id, by("alice"), new_id(), datetime.now(UTC))
    cancelled = await store.cancel_order(request, to_order_reply, None)
    assert isinstance(cancelled, Cancelled)
    assert cancelled.refund is not None
    return cancelled.refund


async def reserved_and_refunded(database: Database) -> list[tuple[int, int]]:
    return [tuple(row) for row in await rows(database, "SELECT refund_reserved_minor, refunded_minor FROM payments")]


async def make_everything_due(database: Database) -> None:
    """As if the leases and waits were over."""
    for table in ("payments", "refunds"):
        statement = text(f"UPDATE {table} SET next_poll_at = 0 WHERE next_poll_at IS NOT NULL")  # noqa: S608 - ours
        await database.write(lambda connection, statement=statement: connection.execute(statement))
