"""Statements on orders."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import audit, changes, keyed_replies, refunds
from payorder.adapters.database.audit_chain import Head, of_changes
from payorder.adapters.database.changes import Change
from payorder.adapters.database.keyed_replies import Use
from payorder.adapters.database.owners import IS_OWNERS, to_owner_parameter
from payorder.adapters.database.rows import from_order, to_milliseconds, to_order, to_receipt
from payorder.adapters.database.tables import orders, payments, receipts
from payorder.domain.errors import OrderNotFound
from payorder.domain.idempotency import IdempotencyKey, Replay, Reply
from payorder.domain.order import Order
from payorder.domain.origin import ANY_OWNER, Origin, Owner
from payorder.domain.states import ORDER, OrderStatus, move
from payorder.ports.store import Cancelled, CancelRequest, FulfilRequest, Page, PageRequest

_CREATE = "CreateOrder"
_ADD = insert(orders)
_GET = select(orders).where(orders.c.id == bindparam("order_id"), IS_OWNERS)
_GET_WITH_RECEIPT = (
    select(
        orders,
        receipts.c.id.label("receipt_id"),
        receipts.c.created_at.label("receipt_created_at"),
        payments.c.captured_minor,
        payments.c.refunded_minor,
        payments.c.currency.label("paid_currency"),
        payments.c.currency_digits.label("paid_currency_digits"),
        payments.c.source_masked,
    )
    .outerjoin(payments, payments.c.id == orders.c.paid_payment_id)
    .outerjoin(receipts, receipts.c.payment_id == payments.c.id)
    .where(orders.c.id == bindparam("order_id"), IS_OWNERS)
)
# SQLite has no row locks and leaves FOR UPDATE out; there the whole transaction is exclusive.
_GET_LOCKED = _GET.with_for_update()
_FIRST_PAGE = (
    select(orders).where(orders.c.owner_sub == bindparam("owner")).order_by(orders.c.id.desc()).limit(bindparam("rows"))
)
_NEXT_PAGE = _FIRST_PAGE.where(orders.c.id < bindparam("after"))
_MOVE = (
    update(orders)
    .where(orders.c.id == bindparam("order_id"))
    .values(status=bindparam("new_status"), updated_at=bindparam("at"), event_seq=orders.c.event_seq + 1)
    .returning(orders, audit.AT)
)


async def add(
    connection: AsyncConnection, order: Order, origin: Origin, reply: Reply, key: IdempotencyKey | None
) -> Replay | None:
    use = Use(origin.actor, _CREATE, key, order.created_at) if key else None
    if use and (replay := await keyed_replies.find(connection, use)):
        return replay
    head = await audit.beginning(connection)
    entries = of_changes(order.id, head, origin, [Change("order", order.id, None, order.status)])
    chain = {"audit_seq": 1, "audit_hash": entries[-1]["hash"], "audit_previous": head.hash}
    await connection.execute(_ADD, from_order(order) | chain)
    await audit.write(connection, entries)
    if use:
        await keyed_replies.keep(connection, use, order.id, reply)
    return None


async def get(connection: AsyncConnection, order_id: str, owner: Owner) -> Order:
    return to_order(await _get_row(connection, _GET, order_id, owner))


async def get_with_receipt(connection: AsyncConnection, order_id: str, owner: Owner) -> Order:
    row = await _get_row(connection, _GET_WITH_RECEIPT, order_id, owner)
    return replace(to_order(row), receipt=to_receipt(row))


async def get_locked(connection: AsyncConnection, order_id: str, owner: Owner) -> Order:
    return to_order(await _get_row(connection, _GET_LOCKED, order_id, owner))


async def list_page(connection: AsyncConnection, owner: str, page: PageRequest) -> Page[Order]:
    statement = _FIRST_PAGE if page.after is None else _NEXT_PAGE
    rows = await connection.execute(statement, {"owner": owner, "after": page.after, "rows": page.size + 1})
    return Page.of([to_order(row) for row in rows], page.size)


async def cancel(
    connection: AsyncConnection, request: CancelRequest, render: Callable[[Order], Reply], key: IdempotencyKey | None
) -> Cancelled | Replay:
    use = Use(request.origin.actor, request.method, key, request.at) if key else None
    if use and (replay := await keyed_replies.find(connection, use)):
        return replay
    cancelled = await _cancelled(connection, request)
    if use:
        await keyed_replies.keep(connection, use, cancelled.order.id, render(cancelled.order))
    return cancelled


async def fulfil(
    connection: AsyncConnection, request: FulfilRequest, render: Callable[[Order], Reply], key: IdempotencyKey | None
) -> Order | Replay:
    use = Use(request.origin.actor, request.method, key, request.at) if key else None
    if use and (replay := await keyed_replies.find(connection, use)):
        return replay
    order = await get_locked(connection, request.order_id, ANY_OWNER)
    order.refuse_unless_next(request.status)
    row, _ = await _move(connection, order, request.status, request.origin, request.at, None)
    if use:
        await keyed_replies.keep(connection, use, order.id, render(to_order(row)))
    return to_order(row)


async def _cancelled(connection: AsyncConnection, request: CancelRequest) -> Cancelled:
    order = await _locked(connection, request)
    if order.status is OrderStatus.CANCELLED:
        return Cancelled(order, None)
    row, head = await _move(
        connection, order, OrderStatus.CANCELLED, request.origin, request.at, request.forced_because
    )
    refund = None
    if order.paid_payment_id:
        at = to_milliseconds(request.at)
        refund = await refunds.reserve(connection, request.refund_id, order, head, request.origin, at)
    return Cancelled(to_order(row), refund)


async def _locked(connection: AsyncConnection, request: CancelRequest) -> Order:
    """The order to be cancelled, if it may be."""
    if request.forced_because is None:
        order = await get_locked(connection, request.order_id, request.origin.owner)
        order.refuse_unless_cancellable()
        return order
    order = await get_locked(connection, request.order_id, ANY_OWNER)
    order.refuse_while_paying()
    return order


async def _move(
    connection: AsyncConnection, order: Order, status: OrderStatus, origin: Origin, at: datetime, reason: str | None
) -> tuple[Any, Head]:
    """Of a locked order: its row as it is then, and the head of its audit log."""
    change = Change("order", order.id, order.status, move(ORDER, order.status, status), reason)
    moved = {"order_id": order.id, "new_status": status, "at": to_milliseconds(at)}
    row = (await connection.execute(_MOVE, moved)).one()
    head = await audit.add(connection, order.id, Head.of_order(row), origin, [change])
    await changes.publish(connection, order.id, row.event_seq, to_milliseconds(at), origin.actor, [change])
    return row, head


async def _get_row(connection: AsyncConnection, statement: Any, order_id: str, owner: Owner) -> Any:
    parameters = {"order_id": order_id, "owner": to_owner_parameter(owner)}
    row = (await connection.execute(statement, parameters)).one_or_none()
    if row is None:
        raise OrderNotFound
    return row
