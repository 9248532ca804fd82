"""Statements on payments; among them the two that money depends on: claim and settle.

Both take the order first and the payment second, so that they never wait for each other in a circle.
"""

from datetime import datetime

from sqlalchemy import bindparam, case, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import orders as order_statements
from payorder.adapters.database.engine import Conflict
from payorder.adapters.database.rows import from_payment, to_milliseconds, to_payment
from payorder.adapters.database.tables import orders, payments
from payorder.domain.errors import OrderNotFound
from payorder.domain.payment import Payment
from payorder.domain.states import PaymentStatus
from payorder.ports.store import Page, PageRequest

# The order becomes this payment's, if it is the owner's, unpaid, free, and costs exactly this. The row stays locked.
_TAKE_ORDER = (
    update(orders)
    .where(
        orders.c.id == bindparam("order_id"),
        orders.c.owner_sub == bindparam("owner"),
        orders.c.status == "placed",
        orders.c.active_payment_id.is_(None),
        orders.c.total_minor == bindparam("total"),
        orders.c.currency == bindparam("total_currency"),
    )
    .values(
        active_payment_id=bindparam("payment_id"),
        latest_payment_id=bindparam("payment_id"),
        updated_at=bindparam("at"),
    )
)
_ADD = insert(payments)
# Compare-and-set: only while the order is still this payment's.
_RELEASE_ORDER = (
    update(orders)
    .where(orders.c.id == bindparam("of_order"), orders.c.active_payment_id == bindparam("payment_id"))
    .values(
        active_payment_id=None,
        status=case((bindparam("succeeded"), "approved"), else_=orders.c.status),
        paid_payment_id=case((bindparam("succeeded"), bindparam("payment_id"))),
        updated_at=bindparam("at"),
    )
)
_SETTLE = (
    update(payments)
    .where(payments.c.id == bindparam("payment_id"), payments.c.status.in_(["processing", "unknown"]))
    .values(
        status=bindparam("new_status"),
        processor_reference=bindparam("reference"),
        decline_code=bindparam("code"),
        failure=bindparam("reason"),
        settled_at=bindparam("at"),
    )
)
_GET = select(payments).where(payments.c.id == bindparam("payment_id"))
_GET_OWNED = _GET.join(orders, orders.c.id == payments.c.order_id).where(orders.c.owner_sub == bindparam("owner"))
_GET_LATEST = (
    select(payments)
    .join(orders, orders.c.latest_payment_id == payments.c.id)
    .where(orders.c.id == bindparam("of_order"), orders.c.owner_sub == bindparam("owner"))
)
_FIRST_PAGE = (
    select(payments)
    .where(payments.c.order_id == bindparam("of_order"))
    .order_by(payments.c.id.desc())
    .limit(bindparam("rows"))
)
_NEXT_PAGE = _FIRST_PAGE.where(payments.c.id < bindparam("after"))


async def claim(connection: AsyncConnection, payment: Payment, owner: str) -> None:
    taken = await connection.execute(
        _TAKE_ORDER,
        {
            "order_id": payment.order_id,
            "owner": owner,
            "total": payment.amount.amount_minor,
            "total_currency": payment.amount.currency.code,
            "payment_id": payment.id,
            "at": to_milliseconds(payment.created_at),
        },
    )
    if taken.rowcount == 0:
        order = await order_statements.get(connection, payment.order_id, owner)
        order.refuse_unless_payable(payment.amount)
        raise Conflict  # It became payable between the two statements.
    await connection.execute(_ADD, from_payment(payment))


async def settle(connection: AsyncConnection, payment: Payment, at: datetime) -> Payment:
    settled_at = to_milliseconds(at)
    succeeded = payment.status is PaymentStatus.SUCCEEDED
    released = await connection.execute(
        _RELEASE_ORDER,
        {"of_order": payment.order_id, "payment_id": payment.id, "succeeded": succeeded, "at": settled_at},
    )
    if released.rowcount == 1:
        await connection.execute(_SETTLE, _end_of(payment, settled_at))
    return to_payment((await connection.execute(_GET, {"payment_id": payment.id})).one())


def _end_of(payment: Payment, settled_at: int) -> dict[str, object]:
    return {
        "payment_id": payment.id,
        "new_status": payment.status,
        "reference": payment.reference,
        "code": payment.decline_code,
        "reason": payment.failure,
        "at": settled_at,
    }


async def get(connection: AsyncConnection, payment_id: str, owner: str) -> Payment:
    return _found((await connection.execute(_GET_OWNED, {"payment_id": payment_id, "owner": owner})).one_or_none())


async def get_latest(connection: AsyncConnection, order_id: str, owner: str) -> Payment:
    return _found((await connection.execute(_GET_LATEST, {"of_order": order_id, "owner": owner})).one_or_none())


async def list_page(connection: AsyncConnection, order_id: str, owner: str, page: PageRequest) -> Page[Payment]:
    await order_statements.get(connection, order_id, owner)
    statement = _FIRST_PAGE if page.after is None else _NEXT_PAGE
    rows = await connection.execute(statement, {"of_order": order_id, "after": page.after, "rows": page.size + 1})
    return Page.of([to_payment(row) for row in rows], page.size)


def _found(row: object | None) -> Payment:
    if row is None:
        raise OrderNotFound
    return to_payment(row)
