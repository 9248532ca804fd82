"""An order that an administrator has cancelled keeps nobody's money, whatever was going on."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conftest import ENGINES, NewMigrated
from payorder.adapters.database.audit_check import AuditCheck, Elsewhere
from payorder.adapters.database.engine import Database
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.processors.sandbox import Sandbox
from payorder.adapters.system import SystemClock, new_id
from payorder.domain.errors import PaymentInProgress, Refusal
from payorder.domain.fingerprint import SourceFingerprints
from payorder.domain.idempotency import Replay
from payorder.domain.money import Money
from payorder.domain.order import Order
from payorder.domain.origin import ANY_OWNER
from payorder.domain.outcome import Approved, Declined, Failed, Outcome, Unknown
from payorder.domain.payment import Payment
from payorder.domain.secret import Secret
from payorder.domain.source import Address, Card, Source
from payorder.domain.states import OrderStatus, PaymentStatus
from payorder.edge.replies import to_order_reply, to_payment_reply
from payorder.ports.admin import EntryFilter
from payorder.ports.store import PageRequest
from payorder.workflows.background import Background
from payorder.workflows.cancel_order import CancelOrder
from payorder.workflows.force_cancel_order import ForceCancelCommand, ForceCancelOrder
from payorder.workflows.pay_order import ChargeLimits, PayOrder, PayOrderCommand
from payorder.workflows.reconcile import Reconcile, ReconcileLimits
from support.records import NO_LIMITS, a_payment, an_order, by, reply_of
from support.service import until

CARD = Card("J. Doe", Secret("4242424242424242"), None, 12, 2025, Address())
ALL = PageRequest(size=100, after=None)
AT_ONCE, ROUNDS_MAX = 6, 20
CHARGED, FENCED = ("refund", "succeeded"), ("payment", "cancelled")


class Slow(Sandbox):
    """A sandbox whose answers come late and out of order, and which tells who got money back."""

    def __init__(self, seed: int) -> None:
        super().__init__(latency_seconds=0, keys_max=10_000)
        self._random = Random(seed)  # noqa: S311 - it is to be repeatable
        self.refunded: Counter[str] = Counter()
        self._refunds: set[str] = set()
        self.is_silent = False

    async def charge(self, key: str, amount: Money, source: Source) -> Outcome:
        # On its way for so long that a cancellation can be there before it.
        await asyncio.sleep(self._random.choice((0.02, 0.06, 0.12)))
        outcome = await super().charge(key, amount, source)
        await self._wait()
        return outcome

    async def cancel(self, key: str, amount: Money) -> Outcome:
        if self.is_silent:
            return Unknown()
        await self._wait()
        return await super().cancel(key, amount)

    async def refund(self, key: str, reference: str, amount: Money) -> Outcome:
        await self._wait()
        if key not in self._refunds:
            self._refunds.add(key)
            self.refunded[reference] += amount.amount_minor
        return await super().refund(key, reference, amount)

    async def kept(self) -> dict[str, int]:
        """What was charged and not given back, by reference."""
        charges = await self.charges(datetime(2020, 1, 1, tzinfo=UTC))
        return {
            charge.reference: kept
            for charge in charges
            if (kept := charge.amount.amount_minor - self.refunded[charge.reference])
        }

    async def after_a_while(self, work: Coroutine[Any, Any, object]) -> object:
        await asyncio.sleep(self._random.uniform(0, 0.08))
        return await work

    async def _wait(self) -> None:
        await asyncio.sleep(self._random.choice((0, 0, 0.001, 0.01, 0.03)))


class Replica:
    """What one process has of the service, over a database that others share."""

    def __init__(self, database: Database, processor: Slow, faults: list[BaseException]) -> None:
        clock = SystemClock()
        self.store = DatabaseStore(database, reconcile_after_seconds=0, limits=NO_LIMITS, on_change=lambda *_: None)
        self.background = Background(on_fault=faults.append)
        self.reconcile = Reconcile(
            store=self.store,
            processor=processor,
            clock=clock,
            render=to_payment_reply,
            limits=ReconcileLimits("sandbox", 0.01, 2, 60, 1),
            on_finding=lambda _: None,
            on_fault=faults.append,
        )
        cancelling = {"refund": self.reconcile.refund, "background": self.background}
        self.force_cancel = ForceCancelOrder(
            store=self.store,
            processor=processor,
            processor_name="sandbox",
            timeout_seconds=2,
            clock=clock,
            new_id=new_id,
            render_order=to_order_reply,
            render_payment=to_payment_reply,
            **cancelling,
        )
        self.cancel = CancelOrder(store=self.store, clock=clock, new_id=new_id, render=to_order_reply, **cancelling)
        self.pay = PayOrder(
            store=self.store,
            processor=processor,
            processor_name="sandbox",
            limits=ChargeLimits(timeout_seconds=2, send_within_seconds=2, at_once=100, backlog=100),
            clock=clock,
            new_id=new_id,
            fingerprints=SourceFingerprints(Secret("key")),
            render=to_payment_reply,
            background=self.background,
        )

    async def force(self, order: Order) -> Order | Replay:
        return await self.force_cancel(ForceCancelCommand(order.id, "because", by("root"), None))

    async def paid(self, order: Order) -> object:
        return await self.pay(PayOrderCommand(order.id, by(order.owner), order.total, CARD, None, 5))


@pytest.fixture
def processor() -> Slow:
    seed = int(os.environ.get("PAYORDER_SEED", "20261122"))
    print(f"seed {seed}")
    return Slow(seed)


@pytest.fixture(params=ENGINES)
async def replicas(
    request: pytest.FixtureRequest, tmp_path: Path, new_migrated: NewMigrated, processor: Slow
) -> AsyncIterator[list[Replica]]:
    url = await new_migrated(request.param, tmp_path)
    databases = [Database(url, pool_size=4, pool_timeout_seconds=5) for _ in range(3)]
    faults: list[BaseException] = []
    made = [Replica(database, processor, faults) for database in databases]
    yield made
    for replica in made:
        assert 0 == await replica.background.drain(10)
    for database in databases:
        await database.close()
    assert [] == faults


async def placed(replica: Replica) -> Order:
    order = an_order()
    await replica.store.add_order(order, by(order.owner), reply_of(order), None)
    return order


async def left_open(replica: Replica, order: Order) -> Payment:
    """A payment that somebody has claimed and then died."""
    payment = a_payment(order)
    assert await replica.store.claim(payment, by(order.owner), None) is None
    return payment


async def states_of(replica: Replica, order: Order) -> list[tuple[str, str | None]]:
    """What became of everything, in the order in which it did."""
    entries = (await replica.store.list_entries(EntryFilter(order_id=order.id), ALL)).items
    return [(entry.kind, entry.to_state) for entry in reversed(entries)]


async def test_what_was_never_charged_is_cancelled_with_its_order(replicas: list[Replica], processor: Slow) -> None:
    order = await placed(replicas[0])
    payment = await left_open(replicas[0], order)
    cancelled = await replicas[1].force(order)
    assert isinstance(cancelled, Order)
    assert OrderStatus.CANCELLED == cancelled.status
    assert PaymentStatus.CANCELLED == (await replicas[2].store.get_payment(payment.id, ANY_OWNER)).status
    assert [("payment", "cancelled"), ("order", "cancelled")] == (await states_of(replicas[0], order))[-2:]
    # The card that comes late finds the payment fenced.
    assert isinstance(await processor.charge(payment.id, payment.amount, CARD), Failed)
    assert {} == await processor.kept()


async def test_what_was_charged_is_settled_and_refunded(replicas: list[Replica], processor: Slow) -> None:
    order = await placed(replicas[0])
    payment = await left_open(replicas[0], order)
    assert isinstance(await processor.charge(payment.id, payment.amount, CARD), Approved)
    await replicas[1].force(order)
    await replicas[1].background.drain(10)
    assert [
        ("payment", "succeeded"),
        ("order", "approved"),
        ("order", "cancelled"),
        ("refund", "processing"),
        ("refund", "succeeded"),
    ] == (await states_of(replicas[0], order))[2:]
    assert {} == await processor.kept()


async def test_a_declined_payment_ends_as_declined(replicas: list[Replica], processor: Slow) -> None:
    order = await placed(replicas[0])
    payment = await left_open(replicas[0], order)
    declined = Card("J. Doe", Secret("4000000000000002"), None, 12, 2025, Address())
    assert isinstance(await processor.charge(payment.id, payment.amount, declined), Declined)
    await replicas[1].force(order)
    ended = await replicas[1].store.get_payment(payment.id, ANY_OWNER)
    assert (PaymentStatus.FAILED, "card_declined") == (ended.status, ended.decline_code)


async def test_while_nobody_knows_nothing_is_changed(replicas: list[Replica], processor: Slow) -> None:
    order = await placed(replicas[0])
    payment = await left_open(replicas[0], order)
    before = await states_of(replicas[0], order)
    processor.is_silent = True
    with pytest.raises(PaymentInProgress) as refused:
        await replicas[1].force(order)
    assert payment.id == refused.value.payment_id
    assert before == await states_of(replicas[0], order)
    processor.is_silent = False
    await replicas[1].force(order)
    assert ("order", "cancelled") == (await states_of(replicas[0], order))[-1]


async def test_a_payment_of_another_processor_is_not_fenced_here(replicas: list[Replica]) -> None:
    order = await placed(replicas[0])
    payment = a_payment(order, processor="other")
    await replicas[0].store.claim(payment, by(order.owner), None)
    with pytest.raises(PaymentInProgress):
        await replicas[1].force(order)
    assert PaymentStatus.PROCESSING == (await replicas[0].store.get_payment(payment.id, ANY_OWNER)).status


async def test_a_caller_who_hangs_up_changes_nothing(replicas: list[Replica], processor: Slow) -> None:
    order = await placed(replicas[0])
    await left_open(replicas[0], order)
    forcing = asyncio.create_task(replicas[1].force(order))
    await asyncio.sleep(0)
    forcing.cancel()
    with suppress(asyncio.CancelledError):
        await forcing
    assert 0 == await replicas[1].background.drain(10)
    assert ("order", "cancelled") == (await states_of(replicas[0], order))[-1]


async def refused(work: object) -> Refusal | None:
    try:
        await work  # type: ignore[misc]
    except Refusal as refusal:
        return refusal
    return None


async def test_of_everything_at_once_no_charge_is_kept(replicas: list[Replica], processor: Slow) -> None:
    """Payments, two administrators, the owner and the reconcilers, on three replicas.

    Until some were paid and given back, and some fenced: with neither, nothing would have been at once.
    """

    async def storm(number: int, order: Order) -> None:
        one, two, three = (replicas[(number + shift) % 3] for shift in range(3))
        later = [two.paid(order), two.force(order), three.force(order), one.cancel(order.id, by(order.owner), None)]
        works = [one.paid(order), *map(processor.after_a_while, [*later, three.reconcile.settle_open()])]
        await asyncio.gather(*map(refused, works))
        assert await until(lambda: refused(two.force(order)), lambda refusal: refusal is None) is None

    orders: list[Order] = []
    seen: Counter[tuple[str, str | None]] = Counter()
    while not (seen[CHARGED] and seen[FENCED]) and len(orders) < AT_ONCE * ROUNDS_MAX:
        added = [await placed(replicas[0]) for _ in range(AT_ONCE)]
        await asyncio.gather(*(storm(number, order) for number, order in enumerate(added)))
        for replica in replicas:
            await replica.background.drain(10)
            await replica.reconcile.settle_open()
        seen.update([state for order in added for state in await states_of(replicas[0], order)])
        orders += added
    assert seen[CHARGED], seen
    assert seen[FENCED], seen
    assert {} == await processor.kept()
    for order in orders:
        states = await states_of(replicas[0], order)
        assert OrderStatus.CANCELLED == (await replicas[0].store.get_order(order.id, order.owner)).status
        assert 1 == states.count(("order", "cancelled"))
        assert states.count(("payment", "succeeded")) == states.count(("refund", "succeeded")) <= 1
    async with replicas[0].store._database.snapshot() as connection:
        assert [] == [fault async for fault in AuditCheck(connection, Elsewhere({}, {}, 0)).faults()]
