"""Statements on refunds: reserved before the processor is called, so that never more is given back than was taken."""

from typing import Any

from sqlalchemy import bindparam, insert, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import audit, changes, findings
from payorder.adapters.database.audit_chain import Head
from payorder.adapters.database.changes import Change
from payorder.adapters.database.clock import now_milliseconds, retry_milliseconds
from payorder.adapters.database.rows import lease_parameters, to_refund
from payorder.adapters.database.tables import REFUND_IS_OPEN, orders, payments, refunds
from payorder.domain.finding import Finding, FindingKind
from payorder.domain.order import Order
from payorder.domain.origin import SERVICE, Origin
from payorder.domain.refund import Refund
from payorder.domain.states import RefundStatus
from payorder.ports.store import Lease

_ORDER_CANCELLED = "order_cancelled"

_RESERVE_ALL = (
    update(payments)
    # A refund in flight keeps its reservation for itself.
    .where(
        payments.c.id == bindparam("of_payment"),
        payments.c.status == "succeeded",
        payments.c.refund_reserved_minor == 0,
    )
    .values(refund_reserved_minor=payments.c.captured_minor - payments.c.refunded_minor)
    .returning(payments.c.refund_reserved_minor, payments.c.processor)
)
_ADD = insert(refunds).values(next_poll_at=now_milliseconds() + bindparam("poll_after"))
_DETAILS = (payments.c.currency, payments.c.currency_digits, payments.c.processor_reference.label("reference"))
_GET = (
    select(refunds, *_DETAILS)
    .join(payments, payments.c.id == refunds.c.payment_id)
    .where(refunds.c.id.in_(bindparam("refund_ids", expanding=True)))
)
_DUE = (
    select(refunds.c.id)
    .where(
        literal_column(REFUND_IS_OPEN),
        refunds.c.processor == bindparam("of_processor"),
        # Asked in a subquery, so once: an index cannot be entered by what moves on from row to row.
        refunds.c.next_poll_at <= select(now_milliseconds()).scalar_subquery(),
    )
    .order_by(refunds.c.next_poll_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
)
_LEASE = (
    update(refunds)
    .where(refunds.c.id.in_(_DUE.scalar_subquery()))
    .values(next_poll_at=now_milliseconds() + bindparam("lease"), poll_attempts=refunds.c.poll_attempts + 1)
    .returning(refunds.c.id)
)
_SETTLE = (
    update(refunds)
    .where(refunds.c.id == bindparam("refund_id"), refunds.c.status == "processing")
    .values(
        status=bindparam("new_status"),
        processor_reference=bindparam("new_reference"),
        next_poll_at=None,
        settled_at=bindparam("at"),
    )
)
_BOOK = (
    update(payments)
    .where(payments.c.id == bindparam("of_payment"))
    .values(
        refund_reserved_minor=payments.c.refund_reserved_minor - bindparam("reserved"),
        refunded_minor=payments.c.refunded_minor + bindparam("refunded"),
    )
)
# Locks the order, and numbers what happens to it.
_COUNT_EVENT = (
    update(orders)
    .where(orders.c.id == bindparam("of_order"))
    .values(event_seq=orders.c.event_seq + 1)
    .returning(orders.c.event_seq, *audit.HEAD)
)
_RETRY = (
    update(refunds)
    .where(refunds.c.id == bindparam("refund_id"), refunds.c.status == "processing")
    .values(next_poll_at=now_milliseconds() + retry_milliseconds(refunds.c.poll_attempts))
)

# The caller refunds at once; this is for a caller that dies before.
_POLL_AFTER_MILLISECONDS = 30_000


async def reserve(
    connection: AsyncConnection, refund_id: str, order: Order, head: Head, origin: Origin, at: int
) -> Refund | None:
    """All that is left of the order's payment, in the transaction that cancels it. The order must be locked."""
    reserving = await connection.execute(_RESERVE_ALL, {"of_payment": order.paid_payment_id})
    of_payment = reserving.one_or_none()
    if of_payment is None or of_payment.refund_reserved_minor == 0:
        return None
    row: dict[str, Any] = {
        "id": refund_id,
        "payment_id": order.paid_payment_id,
        "order_id": order.id,
        "amount_minor": of_payment.refund_reserved_minor,
        "status": "processing",
        "reason": _ORDER_CANCELLED,
        "processor": of_payment.processor,
        "poll_after": _POLL_AFTER_MILLISECONDS,
        "created_at": at,
    }
    await connection.execute(_ADD, row)
    reserved = Change("refund", refund_id, None, RefundStatus.PROCESSING)
    await audit.add(connection, order.id, head, origin, [reserved])
    return to_refund((await connection.execute(_GET, {"refund_ids": [refund_id]})).one())


async def lease_open(connection: AsyncConnection, lease: Lease) -> list[Refund]:
    leased = await connection.execute(_LEASE, lease_parameters(lease))
    refund_ids = leased.scalars().all()
    rows = await connection.execute(_GET, {"refund_ids": refund_ids}) if refund_ids else ()
    return [to_refund(row) for row in rows]


async def settle(connection: AsyncConnection, refund: Refund, reference: str | None, at: int) -> None:
    order = (await connection.execute(_COUNT_EVENT, {"of_order": refund.order_id})).one()
    status = RefundStatus.FAILED if reference is None else RefundStatus.SUCCEEDED
    end = {"refund_id": refund.id, "new_status": status, "new_reference": reference, "at": at}
    if (await connection.execute(_SETTLE, end)).rowcount == 0:
        raise AlreadySettled
    amount_minor = refund.amount.amount_minor
    booked = {
        "of_payment": refund.payment_id,
        "reserved": amount_minor,
        "refunded": amount_minor if reference is not None else 0,
    }
    await connection.execute(_BOOK, booked)
    if reference is None:
        declined = Finding(FindingKind.REFUND_DECLINED, refund.payment_id, refund.reference)
        await findings.record(connection, [declined])
    settled = [Change("refund", refund.id, RefundStatus.PROCESSING, status)]
    await audit.add(connection, refund.order_id, Head.of_order(order), SERVICE, settled)
    await changes.publish(connection, refund.order_id, order.event_seq, at, SERVICE.actor, settled)


async def retry_later(connection: AsyncConnection, refund_id: str) -> None:
    await connection.execute(_RETRY, {"refund_id": refund_id})


class AlreadySettled(Exception):
    """Somebody else was first: the transaction is given up, and nothing is wrong."""
