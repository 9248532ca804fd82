"""Statements on orders."""

from datetime import datetime

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.rows import from_order, to_milliseconds, to_order
from payorder.adapters.database.tables import orders
from payorder.domain.errors import OrderNotFound
from payorder.domain.order import Order
from payorder.domain.states import ORDER, OrderStatus, move
from payorder.ports.store import Page, PageRequest

_ADD = insert(orders)
_GET = select(orders).where(orders.c.id == bindparam("order_id"), orders.c.owner_sub == bindparam("owner"))
# SQLite has no row locks and leaves FOR UPDATE out; there the whole transaction is exclusive.
_GET_LOCKED = _GET.with_for_update()
_FIRST_PAGE = (
    select(orders).where(orders.c.owner_sub == bindparam("owner")).order_by(orders.c.id.desc()).limit(bindparam("rows"))
)
_NEXT_PAGE = _FIRST_PAGE.where(orders.c.id < bindparam("after"))
_SET_STATUS = (
    update(orders)
    .where(orders.c.id == bindparam("order_id"))
    .values(status=bindparam("new_status"), updated_at=bindparam("at"))
)


async def add(connection: AsyncConnection, order: Order) -> None:
    await connection.execute(_ADD, from_order(order))


async def get(connection: AsyncConnection, order_id: str, owner: str) -> Order:
    return _found((await connection.execute(_GET, {"order_id": order_id, "owner": owner})).one_or_none())


async def list_page(connection: AsyncConnection, owner: str, page: PageRequest) -> Page[Order]:
    statement = _FIRST_PAGE if page.after is None else _NEXT_PAGE
    rows = await connection.execute(statement, {"owner": owner, "after": page.after, "rows": page.size + 1})
    return Page.of([to_order(row) for row in rows], page.size)


async def cancel(connection: AsyncConnection, order_id: str, owner: str, at: datetime) -> Order:
    row = (await connection.execute(_GET_LOCKED, {"order_id": order_id, "owner": owner})).one_or_none()
    order = _found(row)
    order.refuse_unless_cancellable()
    if order.status is OrderStatus.CANCELLED:
        return order
    status = move(ORDER, order.status, OrderStatus.CANCELLED)
    await connection.execute(_SET_STATUS, {"order_id": order_id, "new_status": status, "at": to_milliseconds(at)})
    return await get(connection, order_id, owner)


def _found(row: object | None) -> Order:
    if row is None:
        raise OrderNotFound
    return to_order(row)
