"""A small reference model and the real workflows, store and sandbox, driven side by side through every order of steps.

The model knows only what the contract promises: who has paid, what was declined, and what nobody knows yet. Processes
die between the steps of a payment, processors fall silent, and whatever is left open must end as the processor's books
say. PAYORDER_MODEL_EXAMPLES sets the size; a failure prints the steps that lead to it.
"""

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from sqlalchemy import text

from payorder.adapters.database.engine import Database
from payorder.adapters.database.migrate import upgrade
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.processors.sandbox import Sandbox
from payorder.adapters.system import SystemClock, new_id
from payorder.domain.errors import IdempotencyKeyReused, OrderAlreadyPaid, OrderCancelled, PaymentInProgress, Refusal
from payorder.domain.fingerprint import SourceFingerprints
from payorder.domain.idempotency import IdempotencyKey, Replay
from payorder.domain.money import Currency, Money
from payorder.domain.outcome import Approved, Outcome, Unknown
from payorder.domain.payment import Payment
from payorder.domain.secret import Secret
from payorder.domain.source import Address, Card, Source
from payorder.domain.states import PaymentStatus
from payorder.edge.replies import to_order_reply, to_payment_reply
from payorder.workflows.background import Background
from payorder.workflows.cancel_order import CancelOrder
from payorder.workflows.create_order import CreateOrder, CreateOrderCommand
from payorder.workflows.pay_order import ChargeLimits, PayOrder, PayOrderAnswer, PayOrderCommand
from payorder.workflows.reconcile import Reconcile, ReconcileLimits
from support.records import NO_LIMITS, by

TOTAL = Money(4999, Currency("GBP", 2))
OWNER = "alice"
APPROVED, DECLINED, UNANSWERED = "4242424242424242", "4000000000000002", "4000000008000202"

Result = TypeVar("Result")


class Died(BaseException):
    """The process is gone: nothing of ours runs any more."""


class Killable(Sandbox):
    """The sandbox, and a caller that dies before or after its charge when it is told to."""

    dies: str | None = None

    async def charge(self, key: str, amount: Money, source: Source) -> Outcome:
        if self.dies == "before the charge":
            raise Died
        outcome = await super().charge(key, amount, source)
        if self.dies == "after the charge":
            raise Died
        return outcome


@dataclass
class ModelOrder:
    """What the contract promises of one order."""

    is_cancelled: bool = False
    paid_by: str | None = None
    open_payment: str | None = None
    replies: dict[str, bytes] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)

    def refusal(self, key: str | None, number: str) -> type[Refusal] | None:
        if key in self.numbers:
            if self.numbers[key] != number:
                return IdempotencyKeyReused
            return None if key in self.replies else PaymentInProgress
        if self.is_cancelled:
            return OrderCancelled
        if self.paid_by:
            return OrderAlreadyPaid
        return PaymentInProgress if self.open_payment else None


class PayingMachine(RuleBasedStateMachine):
    orders = Bundle("orders")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.model: dict[str, ModelOrder] = {}
        self.processor = Killable(latency_seconds=0, keys_max=10_000)
        self.faults: list[BaseException] = []
        self.run(self.start())

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    async def start(self) -> None:
        url = f"sqlite:///{Path(self.folder.name) / 'payorder.db'}"
        self.database = Database(url, pool_size=2, pool_timeout_seconds=5)
        await upgrade(self.database)
        self.store = DatabaseStore(
            self.database, reconcile_after_seconds=0, limits=NO_LIMITS, on_change=lambda *_: None
        )
        clock, background = SystemClock(), Background(self.faults.append)
        self.reconcile = Reconcile(
            store=self.store,
            processor=self.processor,
            clock=clock,
            render=to_payment_reply,
            limits=ReconcileLimits(
                "sandbox", every_seconds=1, timeout_seconds=5, compare_every_seconds=60, compare_timeout_seconds=5
            ),
            on_finding=lambda finding: self.faults.append(AssertionError(finding)),
            on_fault=self.faults.append,
        )
        self.create_order = CreateOrder(store=self.store, clock=clock, new_id=new_id, render=to_order_reply)
        self.cancel_order = CancelOrder(
            store=self.store,
            clock=clock,
            new_id=new_id,
            render=to_order_reply,
            refund=self.reconcile.refund,
            background=background,
        )
        self.pay_order = PayOrder(
            store=self.store,
            processor=self.processor,
            processor_name="sandbox",
            limits=ChargeLimits(timeout_seconds=5, send_within_seconds=2, at_once=10, backlog=10),
            clock=clock,
            new_id=new_id,
            fingerprints=SourceFingerprints(Secret("key")),
            render=to_payment_reply,
            background=background,
        )
        self.background = background

    def teardown(self) -> None:
        self.run(self.background.drain(5))
        self.run(self.reconcile.settle_open())
        self.run(self.reconcile.compare_books())
        self.the_books_agree()
        self.run(self.database.close())
        self.runner.close()
        self.folder.cleanup()
        assert {Died} >= {type(fault) for fault in self.faults}

    @rule(target=orders)
    def create(self) -> str:
        command = CreateOrderCommand(OWNER, by(OWNER), TOTAL, None, None, {}, None)
        order = self.run(self.create_order(command))
        assert not isinstance(order, Replay)
        self.model[order.id] = ModelOrder()
        return order.id

    @rule(
        order=orders,
        number=st.sampled_from([APPROVED, DECLINED, UNANSWERED]),
        key=st.sampled_from([None, "one", "two"]),
        dies=st.sampled_from([None, None, "before the charge", "after the charge"]),
    )
    def pay(self, order: str, number: str, key: str | None, dies: str | None) -> None:
        expected = self.model[order]
        # Keys belong to the caller, and so does their order in this model.
        key = None if key is None else f"{order}-{key}"
        refusal = expected.refusal(key, number)
        self.processor.dies = dies
        answer = self.run(self.attempt(order, number, key))
        self.processor.dies = None
        assert refusal is (type(answer) if isinstance(answer, Refusal) else None)
        if not isinstance(answer, Refusal):
            self.note(expected, number, key, answer)

    async def attempt(self, order: str, number: str, key: str | None) -> PayOrderAnswer | Refusal | None:
        card = Card("J. Doe", Secret(number), None, 12, 2025, Address())
        idempotency_key = None if key is None else IdempotencyKey(key, number)
        command = PayOrderCommand(order, by(OWNER), TOTAL, card, idempotency_key, answer_within_seconds=5)
        try:
            return await self.pay_order(command)
        except Refusal as refusal:
            return refusal
        except Died:
            return None

    def note(self, expected: ModelOrder, number: str, key: str | None, answer: PayOrderAnswer | None) -> None:
        if answer is not None and answer.is_replay:
            assert expected.replies[key or ""] == answer.reply.body
            return
        if key is not None:
            expected.numbers[key] = number
        if answer is None or answer.is_open:
            latest = self.run(self.latest(expected))
            expected.open_payment = latest.id
            return
        if key is not None:
            expected.replies[key] = answer.reply.body
        if number == APPROVED:
            expected.paid_by = answer.payment_id

    async def latest(self, expected: ModelOrder) -> Payment:
        order_id = next(order_id for order_id, order in self.model.items() if order is expected)
        return await self.store.get_latest_payment(order_id, OWNER)

    @rule(order=orders)
    def cancel(self, order: str) -> None:
        expected = self.model[order]
        try:
            self.run(self.cancel_order(order, by(OWNER), None))
        except PaymentInProgress:
            assert expected.open_payment is not None
            return
        assert expected.open_payment is None
        expected.is_cancelled = True

    @rule()
    def settle(self) -> None:
        self.run(self.reconcile.settle_open())
        for expected in self.model.values():
            if expected.open_payment is not None:
                self.learn(expected, expected.open_payment)

    def learn(self, expected: ModelOrder, payment_id: str) -> None:
        """The payment must have ended as the processor's books say."""
        payment = self.run(self.store.get_payment(payment_id, OWNER))
        is_charged = isinstance(self.processor._ends[payment_id][0], Approved)
        assert not isinstance(self.processor._ends[payment_id][0], Unknown)
        assert (PaymentStatus.SUCCEEDED if is_charged else PaymentStatus.FAILED) == payment.status
        expected.open_payment = None
        expected.paid_by = payment_id if is_charged else None
        for key in expected.numbers.keys() - expected.replies.keys():
            expected.replies[key] = to_payment_reply(payment).body

    @invariant()
    def orders_are_as_promised(self) -> None:
        for order_id, expected in self.model.items():
            order = self.run(self.store.get_order(order_id, OWNER))
            status = "cancelled" if expected.is_cancelled else "approved" if expected.paid_by else "placed"
            assert (status, expected.paid_by, expected.open_payment) == (
                order.status,
                order.paid_payment_id,
                order.active_payment_id,
            )

    @invariant()
    def the_books_agree(self) -> None:
        """At most one charge of an order at the processor, and each of ours is one of theirs."""
        charged = {key for key, (outcome, _) in self.processor._ends.items() if isinstance(outcome, Approved)}
        rows = self.run(self.rows("SELECT id, order_id, status FROM payments"))
        assert charged <= {row.id for row in rows}
        of_orders = [row.order_id for row in rows if row.id in charged]
        assert len(of_orders) == len(set(of_orders))
        assert {row.id for row in rows if row.status == "succeeded"} <= charged

    async def rows(self, statement: str) -> list[Any]:
        async with self.database.read() as connection:
            return list(await connection.execute(text(statement)))


TestPaying = PayingMachine.TestCase
TestPaying.settings = settings(
    max_examples=int(os.environ.get("PAYORDER_MODEL_EXAMPLES", "25")),
    stateful_step_count=25,
    print_blob=True,
)
