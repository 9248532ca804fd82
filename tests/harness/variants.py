"""Deliberately broken versions of the flow: each replaces parts of the service in a process that is about to serve.

They prove that the checker can fail. `needs` are statements that take away constraints which would otherwise hold the
broken version back; `found_by` are the invariants of which at least one must be reported.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from sqlalchemy import bindparam, case, update

from harness.crash_points import reach
from harness.customers import STORIES
from harness.processor.behaviour import ALWAYS_OK, ANSWERS, CHARGES, GENTLE
from harness.processor.plugin import FaultyProcessor
from payorder.adapters.database import audit, changes, hot_path, payments
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import orders as orders_table
from payorder.adapters.database.tables import payments as payments_table
from payorder.domain.idempotency import IdempotencyKey, Replay
from payorder.domain.origin import SERVICE, Origin
from payorder.domain.outcome import Approved, Declined, Failed, Outcome, Unknown
from payorder.domain.payment import Payment
from payorder.domain.states import PaymentStatus
from payorder.edge.replies import to_payment_reply
from payorder.ports.store import CommitUnknown
from payorder.workflows.pay_order import PayOrder, PayOrderAnswer
from payorder.workflows.reconcile import Reconcile

NO_LIVE_INDEX = "DROP INDEX ux_payments_one_live"
BARE_EVENTS = (
    "DROP TABLE events",
    "CREATE TABLE events (order_id TEXT, seq BIGINT, id TEXT, type TEXT, subject_id TEXT, from_state TEXT, actor TEXT,"
    " created_at BIGINT, fanned_out_at BIGINT, faults SMALLINT NOT NULL DEFAULT 0)",
    "DROP TABLE receipts",
    "CREATE TABLE receipts (id TEXT, payment_id TEXT, order_id TEXT, created_at BIGINT)",
)
# Mostly what a variant stumbles over.
UNANSWERED: Mapping[str, int] = {"ok": 30, "drop_before": 15, "drop_after": 30, "late": 25}


@dataclass(frozen=True, slots=True)
class Variant:
    """`settings`, `charges` and `answers` are the run's; `kills`, `pauses`, `cuts` and `hangs_up` its kind and size."""

    apply: Callable[[], None]
    found_by: frozenset[str]
    engine: str = "sqlite"
    needs: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    charges: Mapping[str, int] = field(default_factory=lambda: CHARGES)
    answers: Mapping[str, int] = field(default_factory=lambda: ANSWERS)
    kills: int = 8
    pauses: int = 0
    cuts: int = 0
    points: tuple[str, ...] = ()
    hangs_up: bool = False
    stories: Mapping[str, int] = field(default_factory=lambda: STORIES)


VARIANTS: dict[str, Variant] = {}
# The control: nothing is replaced, and nothing must be found.
AS_IT_IS = Variant(lambda: None, frozenset())


def variant(name: str, *found_by: str, **how: Any) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def add(apply: Callable[[], None]) -> Callable[[], None]:
        VARIANTS[name] = Variant(apply, frozenset(found_by), **how)
        return apply

    return add


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """`make` gets what stands there now."""
    setattr(owner, name, make(getattr(owner, name)))


# The hot path, which only PostgreSQL has.


def _without(statement: str, *conditions: str) -> str:
    for condition in conditions:
        assert condition in statement, condition
        statement = statement.replace(condition, "")
    return statement


@variant("the hot path takes an order that is taken", "I1", "I1g", engine="postgresql", needs=(NO_LIVE_INDEX,))
def _hot_claim_of_a_taken_order() -> None:
    hot_path._CLAIM = _without(hot_path._CLAIM, " AND active_payment_id IS NULL")


@variant(
    "the hot path settles what is settled",
    "I5",
    engine="postgresql",
    needs=BARE_EVENTS,
    pauses=8,
    kills=2,
    charges=ALWAYS_OK,
    points=("charge.after_answer",),
)
def _hot_settle_unconditionally() -> None:
    conditions = (" AND active_payment_id = $1", " AND status IN ('processing', 'unknown')")
    hot_path._SETTLE = _without(hot_path._SETTLE, *conditions)


@variant(
    "a statement that nobody answered counts as done", "I3", engine="postgresql", kills=0, cuts=12, charges=ALWAYS_OK
)
def _lost_means_done() -> None:
    def make(run: Any) -> Any:
        async def _run(*arguments: Any) -> bool:
            try:
                return bool(await run(*arguments))
            except CommitUnknown:
                return True

        return _run

    _replace(hot_path, "_run", make)


# The flow, on SQLite.


@variant("a new processor key for each attempt", "I1", "I1g", charges=UNANSWERED)
def _new_key_per_attempt() -> None:
    def make(charge: Any) -> Any:
        async def _charge(self: Any, payment: Payment, source: Any, began: float) -> Outcome:
            outcome: Outcome = await charge(self, payment, source, began)
            for attempt in range(2):
                if not isinstance(outcome, Unknown):
                    break
                again = replace(payment, id=f"{payment.id[:-1]}{attempt}")
                outcome = await charge(self, again, source, began)
            return outcome

        return _charge

    _replace(PayOrder, "_charge", make)


_command: ContextVar[Any] = ContextVar("command")


@variant("the caller's key is the processor's key", "I3", "I1g")
def _callers_key_passed_on() -> None:
    def make_pay(pay: Any) -> Any:
        async def _pay(self: Any, payment: Payment, command: Any, is_claimed: asyncio.Event) -> PayOrderAnswer:
            _command.set(command)
            return await pay(self, payment, command, is_claimed)

        return _pay

    def make_charge(charge: Any) -> Any:
        async def _charge(self: Any, payment: Payment, source: Any, began: float) -> Outcome:
            key = _command.get().key
            sent = payment if key is None else replace(payment, id=key.key)
            return await charge(self, sent, source, began)

        return _charge

    _replace(PayOrder, "_pay", make_pay)
    _replace(PayOrder, "_charge", make_charge)


def _instead_of_unknown(outcome: Outcome) -> None:
    def make(charge: Any) -> Any:
        async def _charge(self: Any, *arguments: Any) -> Outcome:
            answered: Outcome = await charge(self, *arguments)
            return outcome if isinstance(answered, Unknown) else answered

        return _charge

    _replace(PayOrder, "_charge", make)


@variant("a timeout means failed", "I1", "I3", "I9", charges=UNANSWERED)
def _timeout_means_failed() -> None:
    _instead_of_unknown(Failed("timeout"))


@variant("unknown is told as declined", "I1", "I3", "I9", charges=UNANSWERED)
def _unknown_means_declined() -> None:
    _instead_of_unknown(Declined("card_declined"))


async def _settle_as(reconcile: Any, payment: Payment, outcome: Outcome) -> None:
    settled = payment.after(outcome)
    if settled.status is PaymentStatus.PROCESSING:
        await reconcile._store.retry_later(payment)
    else:
        await reconcile._store.settle(settled, reconcile._render(settled), reconcile._clock.now())


@variant("asked once, without a fence", "I1", "I3", "I9", charges={"ok": 40, "late": 60})
def _ask_without_fence() -> None:
    async def _settle_payment(self: Any, payment: Payment) -> None:
        told = await self._processor.find(payment.id)
        if told.startswith("ch_"):
            await _settle_as(self, payment, Approved(told))
        else:
            await _settle_as(self, payment, Declined("card_declined") if told == "declined" else Failed("not found"))

    Reconcile._settle_payment = _settle_payment


@variant("open payments are given up as failed", "I1", "I3", "I9", charges=UNANSWERED)
def _given_up() -> None:
    async def _settle_payment(self: Any, payment: Payment) -> None:
        await _settle_as(self, payment, Failed("given up"))

    Reconcile._settle_payment = _settle_payment


@variant(
    "a fence that was not answered is believed",
    *("I1", "I3", "I9"),
    charges=UNANSWERED,
    answers={"drop_before": 1, "error_before": 1},
)
def _doubtful_fence() -> None:
    def make(cancel: Any) -> Any:
        async def _cancel(self: Any, key: str, amount: Any) -> Outcome:
            answered: Outcome = await cancel(self, key, amount)
            return Failed("cancelled") if isinstance(answered, Unknown) else answered

        return _cancel

    _replace(FaultyProcessor, "cancel", make)


@variant("the reconciler sends the charge again", "I1s", charges=UNANSWERED)
def _sends_again() -> None:
    sources: dict[str, Any] = {}

    def make(charge: Any) -> Any:
        async def _charge(self: Any, payment: Payment, source: Any, began: float) -> Outcome:
            sources[payment.id] = source
            return await charge(self, payment, source, began)

        return _charge

    def make_settle(settle: Any) -> Any:
        async def _settle_payment(self: Any, payment: Payment) -> None:
            if payment.id not in sources:
                await settle(self, payment)
                return
            again = self._processor.charge(payment.id, payment.amount, sources[payment.id])
            await _settle_as(self, payment, await self._answer(again))

        return _settle_payment

    _replace(PayOrder, "_charge", make)
    _replace(Reconcile, "_settle_payment", make_settle)


@variant("a transaction is held over the call", "I3", "I1g", points=("charge.after_answer", "settle.before_commit"))
def _transaction_over_the_call() -> None:
    async def _pay(self: Any, payment: Payment, command: Any, _is_claimed: asyncio.Event) -> PayOrderAnswer:
        began = self._clock.uptime_seconds()
        async with self._store._database._writes.connect() as connection, connection.begin():
            replay = await payments.claim(connection, payment, command.origin, command.key, self._store._claim_terms)
            if replay is not None:
                return PayOrderAnswer(replay.resource_id, replay.reply, is_replay=True)
            settled = payment.after(await self._charge(payment, command.source, began))
            if settled.status is PaymentStatus.PROCESSING:
                return self._still_open(payment)
            reply = self._render(settled)
            await payments.settle(connection, settled, reply, self._clock.now(), SERVICE)
        return PayOrderAnswer(payment.id, reply)

    PayOrder._pay = _pay


@variant("charged before the claim", "I1", "I1g", "I3")
def _charge_first() -> None:
    async def _pay(self: Any, payment: Payment, command: Any, _is_claimed: asyncio.Event) -> PayOrderAnswer:
        outcome = await self._charge(payment, command.source, self._clock.uptime_seconds())
        replay = await self._store.claim(payment, command.origin, command.key)
        if replay is not None:
            return PayOrderAnswer(replay.resource_id, replay.reply, is_replay=True)
        settled = payment.after(outcome)
        is_open = settled.status is PaymentStatus.PROCESSING
        return await (self._leave_open(payment) if is_open else self._settle(settled, SERVICE))

    PayOrder._pay = _pay


@variant("no lock on the order and no partial unique index", "I1", "I1g", needs=(NO_LIVE_INDEX,))
def _no_unique_index() -> None:
    payments._TAKE_ORDER = (
        update(orders_table)
        .where(
            orders_table.c.id == bindparam("order_id"),
            orders_table.c.owner_sub == bindparam("owner"),
            orders_table.c.status == "placed",
            orders_table.c.total_minor == bindparam("total"),
            orders_table.c.currency == bindparam("total_currency"),
        )
        .values(
            latest_payment_id=bindparam("payment_id"),
            updated_at=bindparam("at"),
        )
        .returning(*payments._TAKEN)
    )
    _settle_unconditionally()


@variant(
    "settle without compare-and-set",
    "I5",
    needs=BARE_EVENTS,
    pauses=8,
    kills=2,
    charges=ALWAYS_OK,
    points=("charge.after_answer",),
)
def _settle_unconditionally() -> None:
    succeeded, columns = bindparam("succeeded"), orders_table.c
    payments._RELEASE_ORDER = (
        update(orders_table)
        .where(columns.id == bindparam("of_order"))
        .values(
            active_payment_id=None,
            status=case((succeeded, "approved"), else_=columns.status),
            paid_payment_id=case((succeeded, bindparam("payment_id")), else_=columns.paid_payment_id),
            event_seq=columns.event_seq + bindparam("change_count"),
            updated_at=bindparam("at"),
        )
        .returning(columns.event_seq, *audit.HEAD)
    )
    bare = update(payments_table).where(payments_table.c.id == bindparam("payment_id"))
    payments._SETTLE = bare.values(
        status=bindparam("new_status"),
        processor_reference=bindparam("reference"),
        captured_minor=bindparam("captured"),
        decline_code=bindparam("code"),
        failure=bindparam("reason"),
        reply_code=bindparam("new_reply_code"),
        reply=bindparam("new_reply"),
        next_poll_at=None,
        settled_at=bindparam("at"),
    )


@variant(
    "the charge ends with the call",
    "I8",
    settings={"RECONCILE_AFTER_SECONDS": "60"},
    charges=ALWAYS_OK,
    hangs_up=True,
    kills=0,
)
def _not_detached() -> None:
    async def __call__(self: Any, command: Any) -> PayOrderAnswer:  # noqa: N807 - the workflow's own name
        return await self._pay(self._new_payment(command), command, asyncio.Event())

    PayOrder.__call__ = __call__


@variant("a replay is rendered again", "I6", charges=GENTLE, kills=3)
def _rendered_again() -> None:
    def make(claim: Any) -> Any:
        async def _claim(self: Any, payment: Payment, origin: Origin, key: IdempotencyKey | None) -> Replay | None:
            replay: Replay | None = await claim(self, payment, origin, key)
            if replay is None:
                return None
            seen = await self.get_payment(replay.resource_id, origin.actor)
            return Replay(seen.id, to_payment_reply(replace(seen, created_at=payment.created_at, decline_code=None)))

        return _claim

    _replace(DatabaseStore, "claim", make)


@variant("the fingerprint is ignored", "I6", charges=GENTLE, kills=3)
def _fingerprint_ignored() -> None:
    IdempotencyKey.refuse_other_request = lambda _self, _fingerprint: None


@variant("keys are not looked at", "I6", charges=GENTLE, kills=3)
def _keys_forgotten() -> None:
    def make(claim: Any) -> Any:
        async def _claim(self: Any, payment: Payment, origin: Origin, _key: IdempotencyKey | None) -> Replay | None:
            return await claim(self, payment, origin, None)

        return _claim

    _replace(DatabaseStore, "claim", make)


_said: ContextVar[list[Any]] = ContextVar("said")


@variant("events are written after the transaction", "I5", points=("settle.after_commit",))
def _events_outside() -> None:
    def make_publish(publish: Any) -> Any:
        async def _publish(*arguments: Any) -> None:
            if (said := _said.get(None)) is not None:
                said.append(arguments[1:])
            else:
                await publish(*arguments)

        return _publish

    def make_settle(settle: Any) -> Any:
        async def _settle(self: Any, *arguments: Any) -> Any:
            token = _said.set([])
            reply = await settle(self, *arguments)
            said = _said.get()
            _said.reset(token)
            for each in said:
                await self._database.finish(lambda connection, each=each: changes.publish(connection, *each))
            return reply

        return _settle

    _replace(changes, "publish", make_publish)
    _replace(DatabaseStore, "settle", make_settle)


@variant("the order is released before settle", "I1", "I3", "I8", needs=(NO_LIVE_INDEX,), charges=UNANSWERED)
def _released_early() -> None:
    release = (
        update(orders_table)
        .where(orders_table.c.active_payment_id == bindparam("held_by"))
        .values(active_payment_id=None)
    )

    def make(leave_open: Any) -> Any:
        async def _leave_open(self: Any, payment: Payment) -> PayOrderAnswer:
            await self._store._database.finish(lambda connection: connection.execute(release, {"held_by": payment.id}))
            return await leave_open(self, payment)

        return _leave_open

    _replace(PayOrder, "_leave_open", make)


@variant(
    "a new key for each attempt at a refund",
    "I2",
    answers={"drop_after": 1},
    charges=ALWAYS_OK,
    stories={"returns": 1},
)
def _new_refund_key() -> None:
    attempts: dict[str, int] = {}

    def make(refund: Any) -> Any:
        async def _refund(self: Any, key: str, reference: str, amount: Any) -> Outcome:
            attempts[key] = attempts.get(key, 0) + 1
            outcome: Outcome = await refund(self, f"{key}-{attempts[key]}", reference, amount)
            if isinstance(outcome, Unknown):
                attempts[key] += 1
                outcome = await refund(self, f"{key}-{attempts[key]}", reference, amount)
            return outcome

        return _refund

    _replace(FaultyProcessor, "refund", make)


@variant("a request is logged", "I7")
def _request_logged() -> None:
    def make(charge: Any) -> Any:
        async def _charge(self: Any, payment: Payment, source: Any, began: float) -> Outcome:
            structlog.get_logger().info("charge", number=source.number.reveal())
            return await charge(self, payment, source, began)

        return _charge

    _replace(PayOrder, "_charge", make)


@variant("what is open is told as failed", "I9", charges=UNANSWERED)
def _open_told_as_failed() -> None:
    def _still_open(self: Any, payment: Payment) -> PayOrderAnswer:
        return PayOrderAnswer(payment.id, self._render(payment.after(Failed("no answer"))))

    PayOrder._still_open = _still_open


@variant("told before it is written", "I6", "I9", points=("settle.before_commit", "settle.before_statement", "told"))
def _told_before_written() -> None:
    async def _settle(self: Any, payment: Payment, _origin: Origin) -> PayOrderAnswer:
        async def write() -> None:
            await asyncio.sleep(0.1)
            reach("told")
            with suppress(Exception):
                await self._store.settle(payment, self._render(payment), self._clock.now())

        self._background.start(write())
        return PayOrderAnswer(payment.id, self._render(payment))

    PayOrder._settle = _settle
