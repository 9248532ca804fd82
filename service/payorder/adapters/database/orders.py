"""Statements on orders."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import changes, refunds
from payorder.adapters.database.changes import Change
from payorder.adapters.database.engine import Conflict
from payorder.adapters.database.rows import from_order, to_milliseconds, to_order, to_time
from payorder.adapters.database.tables import cancellations, orders
from payorder.domain.errors import OrderNotFound
from payorder.domain.idempotency import IdempotencyKey, Replay, Reply, has_expired
from payorder.domain.order import Order
from payorder.domain.states import ORDER, OrderStatus, move
from payorder.ports.store import Cancelled, CancelRequest, Page, PageRequest

_ADD = insert(orders).values(audit_seq=1)
_GET = select(orders).where(orders.c.id == bindparam("order_id"), orders.c.owner_sub == bindparam("owner"))
# SQLite has no row locks and leaves FOR UPDATE out; there the whole transaction is exclusive.
_GET_LOCKED = _GET.with_for_update()
_CREATED_BY = select(orders).where(orders.c.owner_sub == bindparam("owner"), orders.c.create_key == bindparam("key"))
_FORGET_KEY = (
    update(orders)
    .where(orders.c.id == bindparam("order_id"))
    .values(create_key=None, create_fingerprint=None, create_reply=None)
)
_CANCELLED_BY = select(cancellations).where(
    cancellations.c.owner_sub == bindparam("owner"), cancellations.c.idempotency_key == bindparam("key")
)
_FIRST_PAGE = (
    select(orders).where(orders.c.owner_sub == bindparam("owner")).order_by(orders.c.id.desc()).limit(bindparam("rows"))
)
_NEXT_PAGE = _FIRST_PAGE.where(orders.c.id < bindparam("after"))
_CANCEL = (
    update(orders)
    .where(orders.c.id == bindparam("order_id"))
    .values(
        status="cancelled",
        updated_at=bindparam("at"),
        event_seq=orders.c.event_seq + 1,
        audit_seq=orders.c.audit_seq + 1,
    )
    .returning(orders)
)
_KEEP_CANCELLATION = insert(cancellations)
_FORGET_CANCELLATION = delete(cancellations).where(
    cancellations.c.owner_sub == bindparam("owner"), cancellations.c.idempotency_key == bindparam("key")
)


async def add(connection: AsyncConnection, order: Order, reply: Reply, key: IdempotencyKey | None) -> Replay | None:
    if key is not None and (replay := await _created_before(connection, order, key)):
        return replay
    kept = {"create_key": key.key, "create_fingerprint": key.fingerprint, "create_reply": reply.body} if key else {}
    try:
        await connection.execute(_ADD, from_order(order) | kept)
    except IntegrityError:
        raise Conflict from None  # The same key came in between.
    placed = Change("order", order.id, None, order.status)
    await changes.audit(connection, order.id, 1, to_milliseconds(order.created_at), order.owner, [placed])
    return None


async def _created_before(connection: AsyncConnection, order: Order, key: IdempotencyKey) -> Replay | None:
    row = (await connection.execute(_CREATED_BY, {"owner": order.owner, "key": key.key})).one_or_none()
    if row is None:
        return None
    if has_expired(to_time(row.created_at), order.created_at):
        await connection.execute(_FORGET_KEY, {"order_id": row.id})
        return None
    key.refuse_other_request(row.create_fingerprint)
    return Replay(row.id, Reply(0, row.create_reply))


async def get(connection: AsyncConnection, order_id: str, owner: str) -> Order:
    return to_order(await _get_row(connection, _GET, order_id, owner))


async def list_page(connection: AsyncConnection, owner: str, page: PageRequest) -> Page[Order]:
    statement = _FIRST_PAGE if page.after is None else _NEXT_PAGE
    rows = await connection.execute(statement, {"owner": owner, "after": page.after, "rows": page.size + 1})
    return Page.of([to_order(row) for row in rows], page.size)


async def cancel(
    connection: AsyncConnection, request: CancelRequest, render: Callable[[Order], Reply], key: IdempotencyKey | None
) -> Cancelled | Replay:
    if key is not None and (replay := await _cancelled_before(connection, request, key)):
        return replay
    cancelled = await _cancelled(connection, request)
    if key is not None:
        await _keep(connection, cancelled.order, render(cancelled.order), key, request.at)
    return cancelled


async def _cancelled_before(connection: AsyncConnection, request: CancelRequest, key: IdempotencyKey) -> Replay | None:
    used = {"owner": request.owner, "key": key.key}
    row = (await connection.execute(_CANCELLED_BY, used)).one_or_none()
    if row is None:
        return None
    if has_expired(to_time(row.created_at), request.at):
        await connection.execute(_FORGET_CANCELLATION, used)
        return None
    key.refuse_other_request(row.fingerprint)
    return Replay(row.order_id, Reply(0, row.reply))


async def _cancelled(connection: AsyncConnection, request: CancelRequest) -> Cancelled:
    order = to_order(await _get_row(connection, _GET_LOCKED, request.order_id, request.owner))
    order.refuse_unless_cancellable()
    if order.status is OrderStatus.CANCELLED:
        return Cancelled(order, None)
    move(ORDER, order.status, OrderStatus.CANCELLED)
    at = to_milliseconds(request.at)
    row = (await connection.execute(_CANCEL, {"order_id": order.id, "at": at})).one()
    cancelled = [Change("order", order.id, order.status, OrderStatus.CANCELLED)]
    await changes.audit(connection, order.id, row.audit_seq, at, request.owner, cancelled)
    await changes.publish(connection, order.id, row.event_seq, at, cancelled)
    refund = await refunds.reserve(connection, request.refund_id, order, at) if order.paid_payment_id else None
    return Cancelled(to_order(row), refund)


async def _keep(connection: AsyncConnection, order: Order, reply: Reply, key: IdempotencyKey, at: datetime) -> None:
    row = {
        "owner_sub": order.owner,
        "idempotency_key": key.key,
        "fingerprint": key.fingerprint,
        "order_id": order.id,
        "reply": reply.body,
        "created_at": to_milliseconds(at),
    }
    try:
        await connection.execute(_KEEP_CANCELLATION, row)
    except IntegrityError:
        raise Conflict from None  # The same key came in between.


async def _get_row(connection: AsyncConnection, statement: Any, order_id: str, owner: str) -> Any:
    row = (await connection.execute(statement, {"order_id": order_id, "owner": owner})).one_or_none()
    if row is None:
        raise OrderNotFound
    return row
