"""What ports/store.py promises, asked of every engine."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from conftest import ENGINES, NewMigrated, new_database
from payorder.adapters.database.engine import Database
from payorder.adapters.database.migrate import upgrade
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import audit_log, events, orders, payments, refunds
from payorder.adapters.system import new_id
from payorder.domain.errors import (
    AmountMismatch,
    Busy,
    CurrencyMismatch,
    IdempotencyKeyReused,
    OrderAlreadyPaid,
    OrderCancelled,
    OrderNotFound,
    PaymentInProgress,
    Refusal,
)
from payorder.domain.finding import Finding, FindingKind
from payorder.domain.idempotency import IdempotencyKey, Replay, Reply
from payorder.domain.money import Currency, Money
from payorder.domain.order import Order
from payorder.domain.origin import Origin
from payorder.domain.outcome import Approved, Declined, Failed, Outcome
from payorder.domain.payment import Payment
from payorder.domain.refund import Refund
from payorder.domain.source import MaskedSource
from payorder.domain.states import OrderStatus, PaymentStatus, RefundStatus
from payorder.local.postgres import EmbeddedPostgres
from payorder.ports.audit import CallRecord
from payorder.ports.processor import Charge
from payorder.ports.store import Cancelled, CancelRequest, CommitUnknown, Lease, PageRequest, Store
from support.cut import Wire, wire_to
from support.records import (
    BANK_ACCOUNT,
    CARD,
    GBP,
    LATER,
    NO_LIMITS,
    NOON,
    TOTAL,
    a_key,
    a_payment,
    an_order,
    by,
    failed,
    reply_of,
    succeeded,
)

EUR = Currency("EUR", 2)
ALL = PageRequest(size=100, after=None)
DUE = Lease("sandbox", at_most=50, seconds=60)


def store_on(database: Database, *, reconcile_after_seconds: float = 25) -> DatabaseStore:
    return DatabaseStore(
        database, reconcile_after_seconds=reconcile_after_seconds, limits=NO_LIMITS, on_change=lambda *_: None
    )


async def added(store: Store, **changes: Any) -> Order:
    order = an_order(**changes)
    await store.add_order(order, by(order.owner), reply_of(order), None)
    return order


async def claimed(store: Store, order: Order, key: IdempotencyKey | None = None, **changes: Any) -> Payment:
    payment = a_payment(order, **changes)
    assert await store.claim(payment, by(order.owner), key) is None
    return payment


async def settled(store: Store, payment: Payment, at: datetime = NOON) -> Payment:
    assert reply_of(payment) == await store.settle(payment, reply_of(payment), at)
    return payment


async def cancelled(store: Store, order: Order, at: datetime = LATER) -> Cancelled:
    result = await store.cancel_order(CancelRequest(order.id, by(order.owner), new_id(), at), reply_of, None)
    assert isinstance(result, Cancelled)
    return result


def cancel(store: Store, order_id: str, owner: str) -> Awaitable[object]:
    return store.cancel_order(CancelRequest(order_id, by(owner), new_id(), LATER), reply_of, None)


async def refusal_of(work: Awaitable[object]) -> Refusal | None:
    try:
        await work
    except Refusal as refusal:
        return refusal
    return None


async def kinds_of(*works: Awaitable[object]) -> Counter[type[Refusal] | None]:
    """How many of them, started together, were refused for what; None counts the ones that were not."""
    refusals = await asyncio.gather(*map(refusal_of, works))
    return Counter(type(refusal) if refusal else None for refusal in refusals)


# Orders

ORDERS = [
    pytest.param({}, id="least"),
    pytest.param(
        {
            "owner": "auth0|" + "s" * 249,
            "total": Money(999_999_999_999_99, GBP),
            "pet_id": "pet_1",
            "description": "für \N{DOG FACE} 'quoted'; DROP TABLE orders --",
            "metadata": {"b": "2", "a": "\N{SNOWMAN}", "empty": ""},
            "updated_at": LATER,
        },
        id="all",
    ),
    pytest.param({"total": Money(1, Currency("JPY", 0))}, id="no minor digits"),
    pytest.param({"total": Money(1234, Currency("BHD", 3))}, id="three minor digits"),
    pytest.param(
        {"total": Money(9_999_999_999_999_999, Currency("CLF", 4))}, id="four minor digits and the most money"
    ),
    pytest.param({"created_at": datetime(2026, 3, 29, 1, 59, 59, 999_000, tzinfo=UTC)}, id="the last millisecond"),
]


@pytest.mark.parametrize("changes", ORDERS)
async def test_an_order_is_read_as_it_was_added(store: Store, changes: dict[str, Any]) -> None:
    order = await added(store, **changes)
    assert order == await store.get_order(order.id, order.owner)


async def test_an_order_that_is_not_the_callers_is_not_found(store: Store) -> None:
    order = await added(store)
    payment = await claimed(store, order)
    of_bob = a_payment(order)
    asked: list[tuple[str, Awaitable[object]]] = [
        ("get_order", store.get_order(order.id, "bob")),
        ("get_order, other case", store.get_order(order.id, "Alice")),
        ("cancel_order", cancel(store, order.id, "bob")),
        ("claim", store.claim(of_bob, by("bob"), None)),
        ("get_payment", store.get_payment(payment.id, "bob")),
        ("get_latest_payment", store.get_latest_payment(order.id, "bob")),
        ("list_payments", store.list_payments(order.id, "bob", ALL)),
        ("get_order, unknown", store.get_order(new_id(), "alice")),
        ("cancel_order, unknown", cancel(store, new_id(), "alice")),
        ("claim, unknown", store.claim(a_payment(an_order()), by("alice"), None)),
        ("get_payment, unknown", store.get_payment(new_id(), "alice")),
        ("get_payment, of an order's id", store.get_payment(order.id, "alice")),
        ("get_latest_payment, unknown", store.get_latest_payment(new_id(), "alice")),
        ("list_payments, unknown", store.list_payments(new_id(), "alice", ALL)),
    ]
    assert {name: OrderNotFound for name, _ in asked} == {name: type(await refusal_of(ask)) for name, ask in asked}
    assert [] == (await store.list_orders("bob", ALL)).items
    assert [payment] == (await store.list_payments(order.id, "alice", ALL)).items


async def test_for_a_service_every_order_is_as_its_own_and_is_nobody_elses(store: Store) -> None:
    service, order = Origin("shop", acts_for_any_owner=True), await added(store)
    assert await store.get_order(order.id, service.owner) == order
    payment = a_payment(order)
    assert await store.claim(payment, service, a_key()) is None
    lost = await settled(store, failed(payment))
    assert lost == await store.get_payment(payment.id, service.owner)
    assert lost == await store.get_latest_payment(order.id, service.owner)
    assert [lost] == (await store.list_payments(order.id, service.owner, ALL)).items
    assert isinstance(await store.claim(a_payment(order), service, a_key()), Replay)
    # Its key is its own: to the order's owner it is another.
    assert isinstance(await refusal_of(store.claim(a_payment(order), by("shop"), None)), OrderNotFound)
    assert await store.claim(a_payment(order), by("alice"), a_key()) is None
    assert isinstance(await refusal_of(store.get_order(new_id(), service.owner)), OrderNotFound)
    assert isinstance(await refusal_of(store.claim(a_payment(order, order_id=new_id()), service, None)), OrderNotFound)


async def test_a_service_cancels_an_order_of_anybody(store: Store) -> None:
    order = await added(store)
    request = CancelRequest(order.id, Origin("shop", acts_for_any_owner=True), new_id(), LATER)
    done = await store.cancel_order(request, reply_of, None)
    assert isinstance(done, Cancelled)
    assert ("alice", OrderStatus.CANCELLED) == (done.order.owner, done.order.status)


async def test_an_order_nobody_tried_to_pay_has_no_latest_payment(store: Store) -> None:
    order = await added(store)
    with pytest.raises(OrderNotFound):
        await store.get_latest_payment(order.id, order.owner)
    assert [] == (await store.list_payments(order.id, order.owner, ALL)).items


# Cancelling


async def test_a_cancelled_order_is_cancelled_once(store: Store) -> None:
    order = await added(store)
    first = await cancelled(store, order)
    assert (OrderStatus.CANCELLED, LATER, None) == (first.order.status, first.order.updated_at, first.refund)
    assert first == await cancelled(store, order, NOON)
    assert first.order == await store.get_order(order.id, order.owner)


async def test_an_order_whose_payment_failed_can_be_cancelled_and_nothing_is_refunded(store: Store) -> None:
    order = await added(store)
    await settled(store, failed(await claimed(store, order)))
    result = await cancelled(store, order)
    assert (OrderStatus.CANCELLED, None) == (result.order.status, result.refund)


async def test_an_order_is_not_cancelled_under_a_payment(store: Store) -> None:
    order = await added(store)
    payment = await claimed(store, order)
    with pytest.raises(PaymentInProgress) as live:
        await cancelled(store, order)
    assert payment.id == live.value.payment_id
    assert OrderStatus.PLACED == (await store.get_order(order.id, order.owner)).status


async def test_cancelling_a_paid_order_reserves_its_refund_once(store: Store) -> None:
    order = await added(store)
    payment = await settled(store, succeeded(await claimed(store, order)))
    first = await cancelled(store, order)
    assert first.refund is not None
    assert (OrderStatus.CANCELLED, payment.id) == (first.order.status, first.order.paid_payment_id)
    expected = Refund(
        id=first.refund.id,
        payment_id=payment.id,
        order_id=order.id,
        amount=order.total,
        processor="sandbox",
        reference=f"sandbox_{payment.id}",
        status=RefundStatus.PROCESSING,
    )
    assert expected == first.refund
    assert Cancelled(first.order, None) == await cancelled(store, order, NOON)
    assert OrderCancelled is type(await refusal_of(store.claim(a_payment(order), by(order.owner), None)))


@pytest.mark.parametrize("status", ["shipped", "delivered"])
async def test_an_order_that_has_left_is_not_cancelled(store: Store, database: Database, status: str) -> None:
    order = await added(store)
    payment = await settled(store, succeeded(await claimed(store, order)))
    await database.write(lambda connection: connection.execute(update(orders).values(status=status)))
    with pytest.raises(OrderAlreadyPaid) as refused:
        await cancelled(store, order)
    assert payment.id == refused.value.payment_id


async def test_of_many_cancels_of_a_paid_order_one_refunds(store: Store) -> None:
    order = await added(store)
    await settled(store, succeeded(await claimed(store, order)))
    results = await asyncio.gather(*(cancelled(store, order) for _ in range(20)))
    assert {False: 19, True: 1} == Counter(result.refund is not None for result in results)


async def test_of_a_cancel_and_a_claim_exactly_one_happens(store: Store) -> None:
    placed = [await added(store) for _ in range(40)]
    claims = [a_payment(order) for order in placed]
    works: list[Awaitable[object]] = []
    for order, payment in zip(placed, claims, strict=True):
        works += [store.claim(payment, by(order.owner), None), cancel(store, order.id, order.owner)]
    refusals = await asyncio.gather(*map(refusal_of, works))
    for order, payment, of_claim, of_cancel in zip(placed, claims, refusals[::2], refusals[1::2], strict=True):
        now = await store.get_order(order.id, order.owner)
        if of_claim is None:
            assert isinstance(of_cancel, PaymentInProgress)
            assert (OrderStatus.PLACED, payment.id) == (now.status, now.active_payment_id)
        else:
            assert isinstance(of_claim, OrderCancelled)
            assert of_cancel is None
            assert (OrderStatus.CANCELLED, None) == (now.status, now.active_payment_id)


# Claiming

PAYMENTS = [
    pytest.param(CARD, id="card"),
    pytest.param(BANK_ACCOUNT, id="bank account"),
    pytest.param(
        MaskedSource(object="card", name="x", number="************0000", exp_month=1, exp_year=2024),
        id="least of a card",
    ),
]


@pytest.mark.parametrize("source", PAYMENTS)
async def test_a_payment_is_read_as_it_was_claimed(store: Store, source: MaskedSource) -> None:
    order = await added(store)
    payment = await claimed(store, order, source=source, created_at=LATER)
    assert payment == await store.get_payment(payment.id, order.owner)
    assert payment == await store.get_latest_payment(order.id, order.owner)
    now = await store.get_order(order.id, order.owner)
    assert (OrderStatus.PLACED, payment.id, payment.id, None, LATER) == (
        now.status,
        now.active_payment_id,
        now.latest_payment_id,
        now.paid_payment_id,
        now.updated_at,
    )


async def is_placed(store: Store, order: Order) -> None:
    """Nothing has happened to it."""


async def is_cancelled(store: Store, order: Order) -> None:
    await cancelled(store, order)


async def is_being_paid(store: Store, order: Order) -> None:
    await claimed(store, order)


async def is_paid(store: Store, order: Order) -> None:
    await settled(store, succeeded(await claimed(store, order)))


# In the order of the checks: each row breaks its own rule and every rule below it.
CLAIM_REFUSALS = [
    pytest.param(is_cancelled, "bob", Money(4998, EUR), OrderNotFound, id="somebody else's"),
    pytest.param(is_cancelled, "alice", Money(4998, EUR), OrderCancelled, id="cancelled"),
    pytest.param(is_paid, "alice", Money(4998, EUR), OrderAlreadyPaid, id="paid"),
    pytest.param(is_being_paid, "alice", Money(4998, EUR), PaymentInProgress, id="in progress"),
    pytest.param(is_placed, "alice", Money(4998, EUR), CurrencyMismatch, id="currency and amount"),
    pytest.param(is_placed, "alice", Money(4999, EUR), CurrencyMismatch, id="currency"),
    pytest.param(is_placed, "alice", Money(4998, GBP), AmountMismatch, id="less"),
    pytest.param(is_placed, "alice", Money(5000, GBP), AmountMismatch, id="more"),
]


@pytest.mark.parametrize(("state", "owner", "amount", "expected"), CLAIM_REFUSALS)
async def test_the_first_refusal_of_a_claim_wins_and_nothing_is_written(
    store: Store,
    state: Callable[[Store, Order], Awaitable[None]],
    owner: str,
    amount: Money,
    expected: type[Refusal],
) -> None:
    order = await added(store)
    await state(store, order)
    before = await store.get_order(order.id, order.owner), await store.list_payments(order.id, order.owner, ALL)
    refusal = await refusal_of(store.claim(a_payment(order, amount=amount, created_at=LATER), by(owner), None))
    assert expected is type(refusal)
    after = await store.get_order(order.id, order.owner), await store.list_payments(order.id, order.owner, ALL)
    assert before == after
    if isinstance(refusal, OrderAlreadyPaid | PaymentInProgress):
        assert before[0].latest_payment_id == refusal.payment_id


async def test_of_fifty_claims_at_once_exactly_one_wins(store: Store) -> None:
    order = await added(store)
    kinds = await kinds_of(*(store.claim(a_payment(order), by(order.owner), None) for _ in range(50)))
    assert {None: 1, PaymentInProgress: 49} == kinds
    assert 1 == len((await store.list_payments(order.id, order.owner, ALL)).items)


async def test_of_two_hundred_claims_on_twenty_orders_twenty_win(store: Store) -> None:
    placed = [await added(store) for _ in range(20)]
    kinds = await kinds_of(
        *(store.claim(a_payment(order), by(order.owner), None) for _ in range(10) for order in placed)
    )
    assert {None: 20, PaymentInProgress: 180} == kinds
    for order in placed:
        (only,) = (await store.list_payments(order.id, order.owner, ALL)).items
        assert only.id == (await store.get_order(order.id, order.owner)).active_payment_id


async def test_two_services_on_one_database_do_not_both_win(store: Store, database: Database) -> None:
    other = Database(database.url.render_as_string(hide_password=False), pool_size=20, pool_timeout_seconds=30)
    try:
        stores = (store, store_on(other))
        placed = [await added(store) for _ in range(10)]
        kinds = await kinds_of(
            *(
                each.claim(a_payment(order), by(order.owner), None)
                for _ in range(5)
                for order in placed
                for each in stores
            )
        )
        assert {None: 10, PaymentInProgress: 90} == kinds
    finally:
        await other.close()


async def test_no_write_is_lost_between_a_read_and_its_write(store: Store, database: Database) -> None:
    order = await added(store, total=Money(1, GBP))

    async def add_one(connection: Any) -> None:
        read = select(orders.c.total_minor).where(orders.c.id == order.id).with_for_update()
        total = (await connection.execute(read)).scalar_one()
        await asyncio.sleep(0)
        await connection.execute(update(orders).where(orders.c.id == order.id).values(total_minor=total + 1))

    async def add_twenty() -> None:
        for _ in range(20):
            await database.write(add_one)

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(add_twenty())
    assert 401 == (await store.get_order(order.id, order.owner)).total.amount_minor


# Settling

OUTCOMES = [
    pytest.param(Approved("ch_1"), PaymentStatus.SUCCEEDED, OrderStatus.APPROVED, id="approved"),
    pytest.param(Declined("insufficient_funds"), PaymentStatus.FAILED, OrderStatus.PLACED, id="declined"),
    pytest.param(Failed("unreachable"), PaymentStatus.FAILED, OrderStatus.PLACED, id="failed"),
]


@pytest.mark.parametrize(("outcome", "of_payment", "of_order"), OUTCOMES)
async def test_a_settled_payment_and_its_order_are_written_together(
    store: Store, outcome: Outcome, of_payment: PaymentStatus, of_order: OrderStatus
) -> None:
    order = await added(store)
    payment = await settled(store, (await claimed(store, order)).after(outcome), LATER)
    assert payment == await store.get_payment(payment.id, order.owner)
    now = await store.get_order(order.id, order.owner)
    paid = payment.id if of_payment is PaymentStatus.SUCCEEDED else None
    assert (of_payment, of_order, None, payment.id, paid, LATER) == (
        payment.status,
        now.status,
        now.active_payment_id,
        now.latest_payment_id,
        now.paid_payment_id,
        now.updated_at,
    )


@pytest.mark.parametrize(("first", "second"), [(succeeded, failed), (failed, succeeded)])
async def test_the_first_to_settle_wins_and_the_others_are_told_its_reply(
    store: Store, first: Callable[[Payment], Payment], second: Callable[[Payment], Payment]
) -> None:
    order = await added(store)
    payment = await claimed(store, order)
    winner = await settled(store, first(payment))
    settled_order = await store.get_order(order.id, order.owner)
    for late in (second(payment), first(payment)):
        assert reply_of(winner) == await store.settle(late, Reply(13, b"late"), LATER)
    assert winner == await store.get_payment(payment.id, order.owner)
    assert settled_order == await store.get_order(order.id, order.owner)


async def test_of_different_outcomes_at_once_one_is_written_and_all_are_told_it(store: Store) -> None:
    for _ in range(10):
        order = await added(store)
        payment = await claimed(store, order)
        ends = [succeeded(payment), failed(payment), payment.after(Failed("unreachable"))] * 4
        told = await asyncio.gather(*(store.settle(end, reply_of(end), LATER) for end in ends))
        winner = await store.get_payment(payment.id, order.owner)
        assert winner in ends
        assert [reply_of(winner)] * len(ends) == told
        is_paid_by = payment.id if winner.status is PaymentStatus.SUCCEEDED else None
        now = await store.get_order(order.id, order.owner)
        assert (is_paid_by, None) == (now.paid_payment_id, now.active_payment_id)


async def test_a_late_outcome_of_a_failed_payment_does_not_touch_the_next_one(store: Store) -> None:
    order = await added(store)
    first = await claimed(store, order)
    await settled(store, failed(first))
    second = await claimed(store, order)
    late = succeeded(first)
    assert reply_of(failed(first)) == await store.settle(late, reply_of(late), LATER)
    assert failed(first) == await store.get_payment(first.id, order.owner)
    now = await store.get_order(order.id, order.owner)
    assert (OrderStatus.PLACED, second.id, None) == (now.status, now.active_payment_id, now.paid_payment_id)


async def test_a_failed_order_is_paid_by_another_attempt_and_every_attempt_is_kept(store: Store) -> None:
    order = await added(store)
    attempts = [await settled(store, failed(await claimed(store, order))) for _ in range(3)]
    attempts.append(await settled(store, succeeded(await claimed(store, order))))
    assert attempts[::-1] == (await store.list_payments(order.id, order.owner, ALL)).items
    assert attempts[-1] == await store.get_latest_payment(order.id, order.owner)
    assert attempts[0] == await store.get_payment(attempts[0].id, order.owner)
    assert attempts[-1].id == (await store.get_order(order.id, order.owner)).paid_payment_id


async def test_what_happened_is_numbered_without_a_gap(store: Store, database: Database) -> None:
    order = await added(store)
    lost = await settled(store, failed(await claimed(store, order)))
    won = await settled(store, succeeded(await claimed(store, order)))
    refund = (await cancelled(store, order)).refund
    assert refund is not None
    for _ in range(2):
        await store.settle_refund(refund, "re_1", LATER)
    async with database.read() as connection:
        rows = await connection.execute(select(events.c.seq, events.c.type, events.c.subject_id).order_by(events.c.seq))
    assert [
        (1, "payment.failed", lost.id),
        (2, "payment.succeeded", won.id),
        (3, "order.approved", order.id),
        (4, "order.cancelled", order.id),
        (5, "refund.succeeded", refund.id),
    ] == [tuple(row) for row in rows]


async def test_every_change_is_in_the_audit_log_with_who_made_it(store: Store, database: Database) -> None:
    order = await added(store)
    lost = await settled(store, failed(await claimed(store, order)))
    won = await settled(store, succeeded(await claimed(store, order)))
    refund = (await cancelled(store, order)).refund
    assert refund is not None
    for _ in range(2):
        await store.settle_refund(refund, None, LATER)
    async with database.read() as connection:
        rows = await connection.execute(select(audit_log).order_by(audit_log.c.seq))
    assert [
        (1, "alice", "order", order.id, None, "placed"),
        (2, "alice", "payment", lost.id, None, "processing"),
        (3, "payorder", "payment", lost.id, "processing", "failed"),
        (4, "alice", "payment", won.id, None, "processing"),
        (5, "payorder", "payment", won.id, "processing", "succeeded"),
        (6, "payorder", "order", order.id, "placed", "approved"),
        (7, "alice", "order", order.id, "approved", "cancelled"),
        (8, "alice", "refund", refund.id, None, "processing"),
        (9, "payorder", "refund", refund.id, "processing", "failed"),
    ] == [(row.seq, row.actor, row.kind, row.object_id, row.from_state, row.to_state) for row in rows]


# Keys


async def test_an_order_added_again_under_its_key_is_the_first_one(store: Store) -> None:
    first, again = an_order(), an_order()
    assert await store.add_order(first, by(first.owner), reply_of(first), a_key()) is None
    assert Replay(first.id, reply_of(first)) == await store.add_order(again, by(again.owner), reply_of(again), a_key())
    assert [first] == (await store.list_orders("alice", ALL)).items


async def test_of_many_orders_under_one_key_one_is_added(store: Store) -> None:
    wanted = [an_order() for _ in range(20)]
    told = await asyncio.gather(
        *(store.add_order(order, by(order.owner), reply_of(order), a_key()) for order in wanted)
    )
    (only,) = (await store.list_orders("alice", ALL)).items
    assert Counter({None: 1, Replay(only.id, reply_of(only)): 19}) == Counter(told)


async def test_an_order_cancelled_again_under_its_key_is_answered_as_before(store: Store) -> None:
    order = await added(store)
    request = CancelRequest(order.id, by(order.owner), new_id(), LATER)
    first = await store.cancel_order(request, reply_of, a_key())
    assert isinstance(first, Cancelled)
    assert Replay(order.id, reply_of(first.order)) == await store.cancel_order(request, reply_of, a_key())


async def test_an_order_can_be_cancelled_again_under_another_key(store: Store) -> None:
    order = await added(store)
    request = CancelRequest(order.id, by(order.owner), new_id(), LATER)
    answers = [await store.cancel_order(request, reply_of, a_key(name)) for name in ("one", "two", "one", "two")]
    assert [Cancelled, Cancelled, Replay, Replay] == [type(answer) for answer in answers]
    assert answers[2] == answers[3]


async def test_a_request_of_before_the_secret_changed_is_still_known(store: Store) -> None:
    order = await added(store)
    payment = await settled(store, failed(await claimed(store, order, a_key(fingerprint="before"))))
    rotated = IdempotencyKey("key", "after", ("long before", "before"))
    assert Replay(payment.id, reply_of(payment)) == await store.claim(a_payment(order), by(order.owner), rotated)


async def test_a_settled_payment_is_replayed_under_its_key(store: Store) -> None:
    for end in (succeeded, failed):
        order, key = await added(store), a_key(end.__name__)
        payment = await settled(store, end(await claimed(store, order, key)))
        replay = await store.claim(a_payment(order), by(order.owner), key)
        assert Replay(payment.id, reply_of(payment)) == replay
        assert [payment] == (await store.list_payments(order.id, order.owner, ALL)).items


async def test_a_key_whose_payment_is_open_is_in_progress(store: Store) -> None:
    order = await added(store)
    payment = await claimed(store, order, a_key())
    refusal = await refusal_of(store.claim(a_payment(order), by(order.owner), a_key()))
    assert isinstance(refusal, PaymentInProgress)
    assert payment.id == refusal.payment_id


async def test_a_key_with_another_request_is_refused_before_all_else(store: Store) -> None:
    order, other = await added(store), a_key(fingerprint="0" * 64)
    await store.add_order(an_order(), by("alice"), Reply(0, b""), a_key())
    await cancelled(store, await added(store))
    await store.cancel_order(CancelRequest((await added(store)).id, by("alice"), new_id(), NOON), reply_of, a_key())
    await claimed(store, order, a_key())
    works: list[Awaitable[object]] = [
        store.add_order(an_order(), by("alice"), Reply(0, b""), other),
        store.cancel_order(CancelRequest(new_id(), by("alice"), new_id(), NOON), reply_of, other),
        store.claim(a_payment(order, amount=Money(1, EUR)), by("alice"), other),
        store.claim(a_payment(an_order()), by("alice"), other),
    ]
    assert {IdempotencyKeyReused: 4} == await kinds_of(*works)


@pytest.mark.parametrize(("days", "is_known"), [(29, True), (31, False)])
async def test_a_key_expires_after_thirty_days(store: Store, days: int, is_known: bool) -> None:
    then = NOON + timedelta(days=days)
    first, second = an_order(), an_order(created_at=then, updated_at=then)
    assert await store.add_order(first, by(first.owner), reply_of(first), a_key()) is None
    assert is_known == (await store.add_order(second, by(second.owner), reply_of(second), a_key()) is not None)

    await settled(store, succeeded(await claimed(store, first, a_key())))
    other = await added(store)
    assert is_known == (await store.claim(a_payment(other, created_at=then), by("alice"), a_key()) is not None)

    for order, at in ((first, NOON), (await added(store), then)):
        answered = await store.cancel_order(CancelRequest(order.id, by("alice"), new_id(), at), reply_of, a_key())
    assert is_known == isinstance(answered, Replay)


async def test_the_key_of_an_open_payment_does_not_expire(store: Store) -> None:
    payment = await claimed(store, await added(store), a_key())
    later = a_payment(await added(store), created_at=NOON + timedelta(days=31))
    refusal = await refusal_of(store.claim(later, by("alice"), a_key()))
    assert isinstance(refusal, PaymentInProgress)
    assert payment.id == refusal.payment_id


async def test_a_key_is_one_callers_and_one_methods(store: Store) -> None:
    of_alice, of_bob = an_order(), an_order(owner="bob")
    for order in (of_alice, of_bob):
        assert await store.add_order(order, by(order.owner), reply_of(order), a_key()) is None
        await claimed(store, order, a_key(fingerprint="0" * 64))
    await settled(store, failed(await store.get_latest_payment(of_alice.id, "alice")))
    request = CancelRequest(of_alice.id, by("alice"), new_id(), NOON)
    assert isinstance(await store.cancel_order(request, reply_of, a_key(fingerprint="1" * 64)), Cancelled)


async def test_of_many_claims_under_one_key_one_wins(store: Store) -> None:
    order = await added(store)
    kinds = await kinds_of(*(store.claim(a_payment(order), by(order.owner), a_key()) for _ in range(30)))
    assert {None: 1, PaymentInProgress: 29} == kinds


async def test_one_key_on_many_orders_pays_one(store: Store) -> None:
    placed = [await added(store) for _ in range(10)]
    claims = (store.claim(a_payment(order), by("alice"), a_key(fingerprint=order.id)) for order in placed)
    assert {None: 1, IdempotencyKeyReused: 9} == await kinds_of(*claims)
    assert 1 == len([order for order in (await store.list_orders("alice", ALL)).items if order.active_payment_id])


# What stays open


async def test_an_open_payment_is_due_some_time_after_its_claim(store: Store, database: Database) -> None:
    at_once = store_on(database, reconcile_after_seconds=0)
    later = await claimed(store, await added(store))
    now = await claimed(at_once, await added(store))
    assert [now] == await store.lease_open_payments(DUE)
    assert later == await store.get_payment(later.id, "alice")


async def test_a_payment_nobody_knows_of_is_due_at_once_and_looks_as_before(store: Store) -> None:
    payment = await claimed(store, await added(store))
    await store.mark_unknown(payment.id)
    assert payment == await store.get_payment(payment.id, "alice")
    assert [payment] == await store.lease_open_payments(DUE)
    assert PaymentInProgress is type(await refusal_of(cancel(store, payment.order_id, "alice")))
    assert succeeded(payment) == await settled(store, succeeded(payment))


async def test_marking_a_settled_payment_changes_nothing(store: Store) -> None:
    payment = await settled(store, succeeded(await claimed(store, await added(store))))
    await store.mark_unknown(payment.id)
    assert payment == await store.get_payment(payment.id, "alice")
    assert [] == await store.lease_open_payments(DUE)


async def test_what_another_processor_was_asked_for_is_not_due(store: Store) -> None:
    order = await added(store)
    payment = await claimed(store, order, processor="another")
    await store.mark_unknown(payment.id)
    assert [] == await store.lease_open_payments(DUE)
    assert [payment] == await store.lease_open_payments(Lease("another", 50, 60))


async def test_what_is_leased_nobody_else_gets(store: Store, database: Database) -> None:
    at_once = store_on(database, reconcile_after_seconds=0)
    open_payments = {(await claimed(at_once, await added(store))).id for _ in range(20)}
    leases = await asyncio.gather(*(store.lease_open_payments(Lease("sandbox", 5, 60)) for _ in range(8)))
    leased = [payment.id for lease in leases for payment in lease]
    leased += [payment.id for payment in await store.lease_open_payments(DUE)]
    assert (open_payments, 20) == (set(leased), len(leased))


async def test_a_lease_that_ends_is_given_again(store: Store, database: Database) -> None:
    at_once = store_on(database, reconcile_after_seconds=0)
    payment = await claimed(at_once, await added(store))
    for _ in range(2):
        assert [payment] == await store.lease_open_payments(Lease("sandbox", 1, 0))
    await store.lease_open_payments(Lease("sandbox", 1, 60))
    assert [] == await store.lease_open_payments(Lease("sandbox", 1, 0))
    await store.retry_later(payment)
    await settled(store, failed(payment))
    assert [] == await store.lease_open_payments(Lease("sandbox", 1, 0))


@pytest.mark.parametrize(("reference", "refunded"), [("re_1", TOTAL.amount_minor), (None, 0)])
async def test_a_refund_is_settled_once(store: Store, database: Database, reference: str | None, refunded: int) -> None:
    order = await added(store)
    await settled(store, succeeded(await claimed(store, order)))
    refund = (await cancelled(store, order)).refund
    assert refund is not None
    assert [] == await store.lease_open_refunds(DUE)
    await database.write(lambda connection: connection.execute(update(refunds).values(next_poll_at=0)))
    assert [[refund], []] == [await store.lease_open_refunds(DUE) for _ in range(2)]
    await asyncio.gather(*(store.settle_refund(refund, reference, LATER) for _ in range(5)))
    await store.settle_refund(refund, None if reference else "re_2", LATER)
    async with database.read() as connection:
        booked = (
            await connection.execute(
                select(payments.c.captured_minor, payments.c.refund_reserved_minor, payments.c.refunded_minor)
            )
        ).one()
        status = (await connection.execute(select(refunds.c.status, refunds.c.processor_reference))).one()
    assert ((TOTAL.amount_minor, 0, refunded), ("succeeded" if reference else "failed", reference)) == (
        tuple(booked),
        tuple(status),
    )


async def test_what_does_not_fit_the_processors_books_is_found_once(store: Store) -> None:
    order = await added(store)
    lost = await settled(store, failed(await claimed(store, order)))
    won = await settled(store, succeeded(await claimed(store, order)))
    half_paid, unsettled = await added(store), await claimed(store, await added(store))
    half = await settled(store, succeeded(await claimed(store, half_paid)))
    other = await settled(store, succeeded(await claimed(store, await added(store))))
    books = [
        Charge(won.id, f"sandbox_{won.id}", TOTAL),
        Charge(unsettled.id, "ch_open", TOTAL),
        Charge("nobody's", "ch_1", TOTAL),
        Charge(lost.id, "ch_2", TOTAL),
        Charge(half.id, f"sandbox_{half.id}", Money(1, GBP)),
        Charge(other.id, "ch_3", TOTAL),
    ]
    expected = {
        Finding(FindingKind.CHARGE_WITHOUT_PAYMENT, "nobody's", "ch_1"),
        Finding(FindingKind.CHARGE_OF_FAILED_PAYMENT, lost.id, "ch_2"),
        Finding(FindingKind.AMOUNT_DIFFERS, half.id, f"sandbox_{half.id}"),
        Finding(FindingKind.REFERENCE_DIFFERS, other.id, "ch_3"),
    }
    assert expected == set(await store.compare(books))
    assert [] == await store.compare(books)
    assert [] == await store.compare([])


# Pages


async def pages_of(read: Callable[[PageRequest], Awaitable[Any]], size: int) -> list[list[str]]:
    """The ids of every page until the last."""
    found: list[list[str]] = []
    after = None
    while True:
        page = await read(PageRequest(size, after))
        found.append([item.id for item in page.items])
        if not page.has_more:
            return found
        after = found[-1][-1]


@pytest.mark.parametrize(("size", "expected"), [(1, [1] * 5), (2, [2, 2, 1]), (4, [4, 1]), (5, [5]), (100, [5])])
async def test_pages_are_newest_first_and_the_last_says_so(store: Store, size: int, expected: list[int]) -> None:
    order = await added(store)
    ids = [(await settled(store, failed(await claimed(store, order)))).id for _ in range(5)]
    pages = await pages_of(lambda page: store.list_payments(order.id, order.owner, page), size)
    assert (expected, ids[::-1]) == ([len(page) for page in pages], list(chain.from_iterable(pages)))
    more = [order.id] + [(await added(store)).id for _ in range(4)]
    await added(store, owner="bob")
    pages = await pages_of(lambda page: store.list_orders("alice", page), size)
    assert (expected, more[::-1]) == ([len(page) for page in pages], list(chain.from_iterable(pages)))


async def test_a_page_does_not_shift_when_an_order_is_added(store: Store) -> None:
    ids = [(await added(store)).id for _ in range(4)]
    first = await store.list_orders("alice", PageRequest(2, None))
    newest = await added(store)
    second = await store.list_orders("alice", PageRequest(2, first.items[-1].id))
    assert (ids[::-1], False) == ([order.id for order in first.items + second.items], second.has_more)
    assert newest == (await store.list_orders("alice", PageRequest(1, None))).items[0]


async def test_nobody_has_an_empty_page_that_promises_more(store: Store) -> None:
    page = await store.list_orders("nobody", PageRequest(1, None))
    assert ([], False) == (page.items, page.has_more)


async def test_a_page_after_somebody_elses_order_has_only_ones_own(store: Store) -> None:
    own = await added(store)
    theirs = await added(store, owner="bob")
    assert [own] == (await store.list_orders("alice", PageRequest(10, theirs.id))).items


# Readiness, and a database that is full or away


async def test_a_migrated_database_is_ready(store: Store) -> None:
    assert await store.is_ready()


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty(request: pytest.FixtureRequest, tmp_path: Path, postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    """A database without tables, and with room for one reader and one writer."""
    opened = Database(await new_database(request.param, tmp_path, postgres), pool_size=1, pool_timeout_seconds=0.05)
    yield opened
    await opened.close()


async def test_a_database_that_was_never_migrated_is_not_ready(empty: Database) -> None:
    store = store_on(empty)
    assert not await store.is_ready()
    await upgrade(empty)
    assert await store.is_ready()


async def test_a_full_pool_is_busy_and_nothing_is_written(empty: Database) -> None:
    store = store_on(empty)
    await upgrade(empty)
    order = await added(store)
    ends, holds = asyncio.Event(), asyncio.Event()

    async def hold(connection: Any) -> None:
        await connection.execute(select(1))
        holds.set()
        await ends.wait()

    holding = asyncio.create_task(empty.write(hold))
    await holds.wait()
    if empty.hot_path:
        await empty.hot_path._claims._turns.take()
    refused = await kinds_of(
        store.add_order(an_order(), by("alice"), Reply(0, b""), None),
        store.claim(a_payment(order), by(order.owner), None),
        cancel(store, order.id, order.owner),
    )
    ends.set()
    await holding
    assert {Busy: 3} == refused
    assert [order] == (await store.list_orders("alice", ALL)).items
    assert [] == (await store.list_payments(order.id, order.owner, ALL)).items


async def test_reading_from_a_full_pool_is_busy_and_does_not_look_unwell(empty: Database) -> None:
    store = store_on(empty)
    await upgrade(empty)
    order = await added(store)
    async with empty.read() as connection:
        await connection.execute(select(1))
        assert {Busy: 5} == await kinds_of(*reads(store, order))
        assert await store.is_ready()
    # One after the other: who waits behind four others for the one connection may find it late.
    assert {None: 3, OrderNotFound: 2} == sum([await kinds_of(each) for each in reads(store, order)], Counter())


@pytest.mark.parametrize("engine", ENGINES)
async def test_who_has_hundreds_of_calls_written_down_keeps_nobody_else_waiting(
    new_migrated: NewMigrated, tmp_path: Path, engine: str
) -> None:
    database = Database(await new_migrated(engine, tmp_path), pool_size=4, pool_timeout_seconds=0.1)
    store, recorded, enough = store_on(database), asyncio.Event(), asyncio.Event()

    async def flood() -> None:
        while not enough.is_set():
            with suppress(Busy):
                await store.record_call(CallRecord("AdminService/ListOrders", "done", by("mallory"), "{}"))
                recorded.set()

    async with asyncio.TaskGroup() as group:
        for _ in range(300):
            group.create_task(flood())
        await recorded.wait()
        orders = [await added(store) for _ in range(5)]
        enough.set()
    assert orders == (await store.list_orders("alice", ALL)).items[::-1]
    await database.close()


def reads(store: Store, order: Order) -> list[Awaitable[object]]:
    return [
        store.get_order(order.id, order.owner),
        store.list_orders(order.owner, ALL),
        store.get_payment(new_id(), order.owner),
        store.get_latest_payment(order.id, order.owner),
        store.list_payments(order.id, order.owner, ALL),
    ]


def writes(store: Store, order: Order) -> list[Awaitable[object]]:
    return [
        store.add_order(an_order(), by("alice"), Reply(0, b""), None),
        store.claim(a_payment(order), by(order.owner), None),
        cancel(store, order.id, order.owner),
        store.settle(succeeded(a_payment(order)), Reply(0, b""), LATER),
    ]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres@127.0.0.1:1/payorder",
        "postgresql://postgres@/payorder?host=/nowhere",
        "sqlite:////nowhere/payorder.db",
    ],
)
async def test_a_database_that_cannot_be_reached_is_busy(url: str) -> None:
    away = Database(url, pool_size=5, pool_timeout_seconds=1)
    store = store_on(away)
    order = an_order()
    try:
        assert {Busy: 9} == await kinds_of(*reads(store, order), *writes(store, order))
        assert not await store.is_ready()
    finally:
        await away.close()


@pytest.fixture
async def wired(postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncIterator[tuple[Wire, Store]]:
    """A store on PostgreSQL over a wire that can be cut."""
    url = await new_database("postgresql", tmp_path, postgres)
    name = url.partition("?")[0].rpartition("/")[2]
    async with wire_to(postgres, name, tmp_path) as (wire, wired_url):
        opened = Database(wired_url, pool_size=5, pool_timeout_seconds=1)
        await upgrade(opened)
        yield wire, store_on(opened)
        await opened.close()


@pytest.mark.parametrize("options", ["sslmode=disable", "application_name=shop", "options=-c%20geqo=off"])
async def test_options_in_the_url_are_for_every_connection(
    postgres: EmbeddedPostgres, tmp_path: Path, options: str
) -> None:
    opened = Database(
        f"{await new_database('postgresql', tmp_path, postgres)}&{options}", pool_size=2, pool_timeout_seconds=1
    )
    try:
        await upgrade(opened)
        store = store_on(opened)
        await settled(store, succeeded(await claimed(store, await added(store))))
        assert await store.is_ready()
    finally:
        await opened.close()


async def test_a_database_that_goes_away_is_busy_until_it_is_back(wired: tuple[Wire, Store]) -> None:
    wire, store = wired
    order = await added(store)
    assert {None: 3, OrderNotFound: 2} == await kinds_of(*reads(store, order))
    wire.cut()
    assert {Busy: 9} == await kinds_of(*reads(store, order), *writes(store, order))
    assert not await store.is_ready()
    wire.mend()
    assert await store.is_ready()
    assert [order] == (await store.list_orders("alice", ALL)).items
    assert OrderStatus.PLACED == (await store.get_order(order.id, order.owner)).status


async def test_a_claim_that_broke_in_its_midst_is_busy_and_nothing_is_written(
    wired: tuple[Wire, Store],
) -> None:
    wire, store = wired
    order = await added(store)
    payment = a_payment(order)

    async def break_in(connection: Any) -> None:
        await connection.execute(update(orders).values(active_payment_id=payment.id))
        wire.cut()
        await connection.execute(select(1))

    assert isinstance(await refusal_of(store._database.write(break_in)), Busy)
    wire.mend()
    assert order == await store.get_order(order.id, order.owner)


Lose = Callable[[Wire, str], None]


@pytest.fixture(params=["hot path", "general way"])
def lose(request: pytest.FixtureRequest, wired: tuple[Wire, Store]) -> Lose:
    """Loses the answer to what ends the transaction of a statement, on either way to it."""
    if request.param == "hot path":
        return Wire.lose_the_answer_to
    wired[1]._database.hot_path = None
    return Wire.lose_the_commit_of


async def test_a_claim_whose_commit_was_not_heard_is_not_called_nothing(wired: tuple[Wire, Store], lose: Lose) -> None:
    wire, store = wired
    order = await added(store)
    payment = a_payment(order)
    lose(wire, "INSERT INTO payments")
    refusal = await refusal_of(store.claim(payment, by(order.owner), None))
    written = (await store.list_payments(order.id, order.owner, ALL)).items
    assert ([payment], None) == (written, refusal)


async def test_an_order_whose_commit_was_not_heard_is_no_refusal(wired: tuple[Wire, Store]) -> None:
    wire, store = wired
    wire.lose_the_commit_of("INSERT INTO orders")
    order = an_order()
    with pytest.raises(CommitUnknown):
        await store.add_order(order, by(order.owner), reply_of(order), None)
    assert [order] == (await store.list_orders("alice", ALL)).items


async def test_a_settlement_whose_commit_was_not_heard_is_told_as_it_is(wired: tuple[Wire, Store], lose: Lose) -> None:
    wire, store = wired
    order = await added(store)
    payment = await claimed(store, order)
    lose(wire, "INSERT INTO receipts")
    won = succeeded(payment)
    assert isinstance(await refusal_of(store.settle(won, reply_of(won), LATER)), Busy)
    assert reply_of(won) == await store.settle(failed(payment), reply_of(failed(payment)), LATER)
    assert OrderStatus.APPROVED == (await store.get_order(order.id, order.owner)).status


@pytest.mark.parametrize("url", ["mysql://localhost/payorder", "oracle://localhost/payorder"])
def test_another_kind_of_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="use sqlite or postgresql"):
        Database(url, pool_size=1, pool_timeout_seconds=1)


async def test_no_more_than_the_masked_source_is_stored(store: Store, database: Database) -> None:
    order = await added(store)
    await claimed(store, order)
    async with database.read() as connection:
        row = (await connection.execute(select(payments))).one()
        assert 1 == (await connection.execute(select(func.count()).select_from(payments))).scalar_one()
    assert ("card", "4242", TOTAL.amount_minor) == (row.source_kind, row.source_last4, row.amount_minor)
    assert "************4242" in row.source_masked


async def test_a_fault_of_the_database_shows_no_value(database: Database) -> None:
    async def ask(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT 1 FROM nowhere WHERE number = :number"), {"number": "4242424242424242"})

    with pytest.raises(DBAPIError) as fault:
        await database.write(ask)
    assert "nowhere" in str(fault.value)
    assert "4242" not in f"{fault.value} {fault.value!r}"
