"""Statements on payments; among them the two that money depends on: claim and settle.

Both take the order first and the payment second, so that they never wait for each other in a circle.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, case, insert, literal_column, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import attempts, audit, changes
from payorder.adapters.database import orders as order_statements
from payorder.adapters.database.attempts import ClaimTerms, to_window_milliseconds
from payorder.adapters.database.audit_chain import Head
from payorder.adapters.database.clock import now_milliseconds, retry_milliseconds
from payorder.adapters.database.engine import Conflict
from payorder.adapters.database.owners import IS_OWNERS, to_owner_parameter
from payorder.adapters.database.rows import from_payment, lease_parameters, to_milliseconds, to_payment, to_time
from payorder.adapters.database.tables import PAYMENT_IS_OPEN, orders, payments, receipts
from payorder.domain.errors import OrderNotFound, PaymentInProgress
from payorder.domain.idempotency import IdempotencyKey, Replay, Reply, has_expired
from payorder.domain.limits import AttemptLimits
from payorder.domain.origin import Origin, Owner
from payorder.domain.payment import Payment
from payorder.domain.states import PaymentStatus
from payorder.ports.store import Lease, Page, PageRequest

_OPEN: ColumnElement[bool] = literal_column(PAYMENT_IS_OPEN)
# Asked in a subquery, so once: an index cannot be entered by what moves on from row to row.
_NOW = select(now_milliseconds()).scalar_subquery()

_TAKEN = (orders.c.owner_sub, orders.c.declines, orders.c.declined_at, *audit.HEAD)
# The order becomes this payment's, if it is the owner's, unpaid, free, and costs exactly this. The row stays locked.
_TAKE_ORDER = (
    update(orders)
    .where(
        orders.c.id == bindparam("order_id"),
        IS_OWNERS,
        orders.c.status == "placed",
        orders.c.active_payment_id.is_(None),
        orders.c.total_minor == bindparam("total"),
        orders.c.currency == bindparam("total_currency"),
    )
    .values(
        active_payment_id=bindparam("payment_id"),
        latest_payment_id=bindparam("payment_id"),
        updated_at=bindparam("at"),
        declines=case((orders.c.declined_at <= now_milliseconds() - bindparam("window"), 0), else_=orders.c.declines),
    )
    .returning(*_TAKEN)
)
_ADD = insert(payments)
_FIND_BY_KEY = select(payments).where(
    payments.c.caller == bindparam("of_caller"), payments.c.idempotency_key == bindparam("key")
)
_FORGET_KEY = (
    update(payments).where(payments.c.id == bindparam("payment_id")).values(idempotency_key=None, fingerprint=None)
)
# Compare-and-set: only while the order is still this payment's.
_RELEASE_ORDER = (
    update(orders)
    .where(orders.c.id == bindparam("of_order"), orders.c.active_payment_id == bindparam("payment_id"))
    .values(
        active_payment_id=None,
        status=case((bindparam("succeeded"), "approved"), else_=orders.c.status),
        paid_payment_id=case((bindparam("succeeded"), bindparam("payment_id"))),
        declines=orders.c.declines + case((bindparam("declined"), 1), else_=0),
        declined_at=case((bindparam("declined"), now_milliseconds()), else_=orders.c.declined_at),
        event_seq=orders.c.event_seq + bindparam("change_count"),
        updated_at=bindparam("at"),
    )
    .returning(orders.c.event_seq, *audit.HEAD)
)
_SETTLE = (
    update(payments)
    .where(payments.c.id == bindparam("payment_id"), _OPEN)
    .values(
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
)
_ADD_RECEIPT = insert(receipts)
_MARK_UNKNOWN = (
    update(payments)
    .where(payments.c.id == bindparam("payment_id"), payments.c.status == "processing")
    .values(status="unknown", next_poll_at=now_milliseconds())
)
_DUE = (
    select(payments.c.id)
    .where(_OPEN, payments.c.processor == bindparam("of_processor"), payments.c.next_poll_at <= _NOW)
    .order_by(payments.c.next_poll_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
)
_LEASE = (
    update(payments)
    .where(payments.c.id.in_(_DUE.scalar_subquery()))
    .values(next_poll_at=now_milliseconds() + bindparam("lease"), poll_attempts=payments.c.poll_attempts + 1)
    .returning(payments)
)
_RETRY = (
    update(payments)
    .where(payments.c.id == bindparam("payment_id"), _OPEN)
    .values(next_poll_at=now_milliseconds() + retry_milliseconds(payments.c.poll_attempts))
)
_GET = select(payments).where(payments.c.id == bindparam("payment_id"))
_GET_OWNED = _GET.join(orders, orders.c.id == payments.c.order_id).where(IS_OWNERS)
_GET_LATEST = (
    select(payments)
    .join(orders, orders.c.latest_payment_id == payments.c.id)
    .where(orders.c.id == bindparam("of_order"), IS_OWNERS)
)
_FIRST_PAGE = (
    select(payments)
    .where(payments.c.order_id == bindparam("of_order"))
    .order_by(payments.c.id.desc())
    .limit(bindparam("rows"))
)
_NEXT_PAGE = _FIRST_PAGE.where(payments.c.id < bindparam("after"))


async def claim(
    connection: AsyncConnection, payment: Payment, origin: Origin, key: IdempotencyKey | None, terms: ClaimTerms
) -> Replay | None:
    if key is not None and (replay := await _seen(connection, origin.actor, key, payment.created_at)):
        return replay
    taken = await _take_order(connection, payment, origin.owner, terms.limits)
    if taken is None:
        # Another call with this key may have taken it, and even have finished, since we looked.
        if key is not None and (replay := await _seen(connection, origin.actor, key, payment.created_at)):
            return replay
        order = await order_statements.get(connection, payment.order_id, origin.owner)
        order.refuse_unless_payable(payment.amount)
        raise Conflict  # It became payable between the two statements.
    row = from_payment(payment) | {
        "owner_sub": taken.owner_sub,
        "caller": origin.actor,
        "claimed_at": taken.audit_at,
        "next_poll_at": taken.audit_at + terms.poll_after_ms,
        **await attempts.number(connection, payment, taken, terms.limits),
    }
    if key is not None:
        row |= {"idempotency_key": key.key, "fingerprint": key.fingerprint}
    try:
        await connection.execute(_ADD, row)
    except IntegrityError:
        raise Conflict from None  # The same key, owner or source came in between, for another order.
    await audit.add(connection, payment.order_id, Head.of_order(taken), origin, [changes.of_claimed(payment)])
    return None


async def settle(
    connection: AsyncConnection, payment: Payment, reply: Reply, at: datetime, origin: Origin
) -> Reply | None:
    """None, or the reply of whoever settled it before."""
    settled_at = to_milliseconds(at)
    happened = changes.of_settled(payment)
    released = await connection.execute(
        _RELEASE_ORDER,
        {
            "of_order": payment.order_id,
            "payment_id": payment.id,
            "succeeded": payment.status is PaymentStatus.SUCCEEDED,
            "declined": payment.decline_code is not None,
            "change_count": len(happened),
            "at": settled_at,
        },
    )
    order = released.one_or_none()
    if order is None:
        row = (await connection.execute(_GET, {"payment_id": payment.id})).one()
        return Reply(row.reply_code, row.reply)
    settled = await connection.execute(_SETTLE, _end_of(payment, reply, settled_at))
    assert settled.rowcount == 1, "an order is active for an open payment only"
    if payment.status is PaymentStatus.SUCCEEDED:
        await connection.execute(_ADD_RECEIPT, _receipt_of(payment, settled_at))
    await audit.add(connection, payment.order_id, Head.of_order(order), origin, happened)
    await changes.publish(connection, payment.order_id, order.event_seq, settled_at, origin.actor, happened)
    return None


async def mark_unknown(connection: AsyncConnection, payment_id: str) -> None:
    await connection.execute(_MARK_UNKNOWN, {"payment_id": payment_id})


async def lease_open(connection: AsyncConnection, lease: Lease) -> list[Payment]:
    rows = await connection.execute(_LEASE, lease_parameters(lease))
    return [to_payment(row) for row in rows]


async def retry_later(connection: AsyncConnection, payment_id: str) -> None:
    await connection.execute(_RETRY, {"payment_id": payment_id})


async def exists(connection: AsyncConnection, payment_id: str) -> bool:
    return (await connection.execute(_GET, {"payment_id": payment_id})).one_or_none() is not None


async def get(connection: AsyncConnection, payment_id: str, owner: Owner) -> Payment:
    parameters = {"payment_id": payment_id, "owner": to_owner_parameter(owner)}
    return _found((await connection.execute(_GET_OWNED, parameters)).one_or_none())


async def get_latest(connection: AsyncConnection, order_id: str, owner: Owner) -> Payment:
    parameters = {"of_order": order_id, "owner": to_owner_parameter(owner)}
    return _found((await connection.execute(_GET_LATEST, parameters)).one_or_none())


async def list_page(connection: AsyncConnection, order_id: str, owner: Owner, page: PageRequest) -> Page[Payment]:
    await order_statements.get(connection, order_id, owner)
    statement = _FIRST_PAGE if page.after is None else _NEXT_PAGE
    rows = await connection.execute(statement, {"of_order": order_id, "after": page.after, "rows": page.size + 1})
    return Page.of([to_payment(row) for row in rows], page.size)


async def _seen(connection: AsyncConnection, caller: str, key: IdempotencyKey, now: datetime) -> Replay | None:
    row = (await connection.execute(_FIND_BY_KEY, {"of_caller": caller, "key": key.key})).one_or_none()
    if row is None:
        return None
    if row.reply is not None and has_expired(to_time(row.created_at), now):
        await connection.execute(_FORGET_KEY, {"payment_id": row.id})
        return None
    key.refuse_other_request(row.fingerprint)
    if row.reply is None:
        raise PaymentInProgress(row.id)
    return Replay(row.id, Reply(row.reply_code, row.reply))


async def _take_order(
    connection: AsyncConnection, payment: Payment, owner: Owner, limits: AttemptLimits
) -> Row[Any] | None:
    """The order's row as far as _TAKEN, or None if the order cannot be paid so."""
    taken = await connection.execute(
        _TAKE_ORDER,
        {
            "order_id": payment.order_id,
            "owner": to_owner_parameter(owner),
            "total": payment.amount.amount_minor,
            "total_currency": payment.amount.currency.code,
            "payment_id": payment.id,
            "at": to_milliseconds(payment.created_at),
            "window": to_window_milliseconds(limits),
        },
    )
    return taken.one_or_none()


def _end_of(payment: Payment, reply: Reply, settled_at: int) -> dict[str, object]:
    return {
        "payment_id": payment.id,
        "new_status": payment.status,
        "reference": payment.reference,
        "captured": payment.amount.amount_minor if payment.status is PaymentStatus.SUCCEEDED else 0,
        "code": payment.decline_code,
        "reason": payment.failure,
        "new_reply_code": reply.code,
        "new_reply": reply.body,
        "at": settled_at,
    }


def _receipt_of(payment: Payment, at: int) -> dict[str, object]:
    # One receipt of one payment: it needs no id of its own making.
    return {"id": payment.id, "payment_id": payment.id, "order_id": payment.order_id, "created_at": at}


def _found(row: Row[Any] | None) -> Payment:
    if row is None:
        raise OrderNotFound
    return to_payment(row)
