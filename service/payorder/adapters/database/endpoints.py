"""Statements on webhook endpoints: of whoever created them, and of nobody else."""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import audit, endpoint_deliveries, keyed_replies, orders, overlaps
from payorder.adapters.database.clock import now_milliseconds
from payorder.adapters.database.keyed_replies import Use
from payorder.adapters.database.overlaps import Overlap
from payorder.adapters.database.rows import to_milliseconds, to_time
from payorder.adapters.database.tables import NO_CALLBACK, webhook_endpoints
from payorder.adapters.database.tables import orders as orders_table
from payorder.domain.errors import WebhookLimitReached, WebhookNotFound
from payorder.domain.idempotency import IdempotencyKey, Replay
from payorder.domain.webhook import DisabledBecause, Endpoint, EndpointChange, EndpointState
from payorder.ports.audit import CallRecord
from payorder.ports.endpoints import NewCallback, NewSecret
from payorder.ports.store import Page, PageRequest

_REQUEST_CALLBACK = "RequestCallback"
# That sign beside the endpoint's own.
_OVERLAPS_MAX = 4
_CREATED_BY = webhook_endpoints.c.created_by == bindparam("caller")
_OF_CALLER = (webhook_endpoints.c.id == bindparam("endpoint_id"), _CREATED_BY)
_NO_CALLBACK: ColumnElement[bool] = literal_column(NO_CALLBACK)

_ADD = insert(webhook_endpoints)
_COUNT = select(func.count()).select_from(webhook_endpoints).where(_CREATED_BY, _NO_CALLBACK)
_COUNT_OF_ORDER = (
    select(func.count()).select_from(webhook_endpoints).where(webhook_endpoints.c.order_id == bindparam("of_order"))
)
_GET = select(webhook_endpoints).where(*_OF_CALLER)
# Whoever writes a delivery meanwhile need not wait.
_GET_LOCKED = _GET.with_for_update(key_share=True)
# Only that it stays: what becomes of its deliveries meanwhile may change it.
_GET_KEPT = _GET.with_for_update(read=True, key_share=True)
_FIRST_PAGE = (
    select(webhook_endpoints)
    .where(_CREATED_BY, _NO_CALLBACK)
    .order_by(webhook_endpoints.c.id.desc())
    .limit(bindparam("rows"))
)
_NEXT_PAGE = _FIRST_PAGE.where(webhook_endpoints.c.id < bindparam("after"))
_CALLBACKS = select(webhook_endpoints).where(webhook_endpoints.c.order_id == bindparam("of_order"), _CREATED_BY)
_CHANGE = (
    update(webhook_endpoints)
    .where(webhook_endpoints.c.id == bindparam("endpoint_id"))
    .values(
        url=bindparam("new_url"),
        url_by_service=bindparam("new_url_by_service"),
        description=bindparam("new_description"),
        event_types=bindparam("new_event_types"),
        state=bindparam("new_state"),
        disabled_because=bindparam("new_disabled_because"),
        failing_since=bindparam("new_failing_since"),
        updated_at=bindparam("at"),
    )
)
_ROTATE = (
    update(webhook_endpoints)
    .where(webhook_endpoints.c.id == bindparam("endpoint_id"))
    .values(
        secret=bindparam("new_secret"),
        previous_secrets=bindparam("new_previous_secrets"),
        previous_secret_until=bindparam("new_previous_secret_until"),
        updated_at=bindparam("at"),
    )
    .returning(webhook_endpoints)
)
_NOW = select(now_milliseconds())
_NEWEST_EVENT = select(orders_table.c.event_seq).where(orders_table.c.id == bindparam("of_order"))
_DISABLE = (
    update(webhook_endpoints)
    .where(*_OF_CALLER)
    .values(
        state=EndpointState.DISABLED,
        disabled_because=func.coalesce(webhook_endpoints.c.disabled_because, DisabledBecause.OWNER),
    )
)
_DELETE = delete(webhook_endpoints).where(*_OF_CALLER)


async def add(
    connection: AsyncConnection, endpoint: Endpoint, sealed_secret: bytes, call: CallRecord, at_most: int
) -> None:
    # Whoever creates another one at the same time waits here, before anything is counted.
    await audit.add_call(connection, call)
    count = await connection.execute(_COUNT, {"caller": endpoint.created_by})
    if count.scalar_one() >= at_most:
        raise WebhookLimitReached
    await connection.execute(_ADD, _from_endpoint(endpoint) | {"secret": sealed_secret})


async def add_callback(
    connection: AsyncConnection, callback: NewCallback, call: CallRecord, at_most: int
) -> Replay | None:
    endpoint = callback.endpoint
    use = _use(endpoint.created_by, callback.key, endpoint.created_at) if callback.key else None
    if use and (replay := await keyed_replies.find(connection, use)):
        return replay
    await audit.add_call(connection, call)
    # Locked, the order cannot end before the callback is there to be told of it.
    order = await orders.get_locked(connection, callback.order_id, callback.owner)
    order.refuse_unless_total(callback.amount)
    count = await connection.execute(_COUNT_OF_ORDER, {"of_order": order.id})
    if count.scalar_one() >= at_most:
        raise WebhookLimitReached
    delivery = callback.if_ended(order)
    ended = {"state": EndpointState.DISABLED, "disabled_because": DisabledBecause.DONE} if delivery else {}
    # What happened before, though it may not have been told to anybody yet, is not what was asked for.
    after_seq = (await connection.execute(_NEWEST_EVENT, {"of_order": order.id})).scalar_one()
    row = _from_endpoint(endpoint) | {"owner_sub": order.owner, "after_seq": after_seq}
    await connection.execute(_ADD, row | ended)
    if delivery:
        await endpoint_deliveries.add(connection, delivery)
    if use:
        await keyed_replies.keep(connection, use, order.id, callback.reply)
    return None


async def find_reply(connection: AsyncConnection, caller: str, key: IdempotencyKey, at: datetime) -> Replay | None:
    return await keyed_replies.find(connection, _use(caller, key, at))


def _use(caller: str, key: IdempotencyKey, at: datetime) -> Use:
    return Use(caller, _REQUEST_CALLBACK, key, at)


async def get(connection: AsyncConnection, endpoint_id: str, created_by: str) -> Endpoint:
    return to_endpoint(await _get_row(connection, _GET, endpoint_id, created_by))


async def list_page(connection: AsyncConnection, created_by: str, page: PageRequest) -> Page[Endpoint]:
    statement = _FIRST_PAGE if page.after is None else _NEXT_PAGE
    rows = await connection.execute(statement, {"caller": created_by, "after": page.after, "rows": page.size + 1})
    return Page.of([to_endpoint(row) for row in rows], page.size)


async def list_callbacks(connection: AsyncConnection, created_by: str, order_id: str) -> list[Endpoint]:
    rows = await connection.execute(_CALLBACKS, {"caller": created_by, "of_order": order_id})
    return sorted(map(to_endpoint, rows), key=lambda endpoint: endpoint.id, reverse=True)


async def get_locked(connection: AsyncConnection, endpoint_id: str, created_by: str) -> Endpoint:
    """Raises WebhookNotFound, also for a callback: it is what it is."""
    return _to_own_endpoint(await _get_row(connection, _GET_LOCKED, endpoint_id, created_by))


async def get_kept(connection: AsyncConnection, endpoint_id: str, created_by: str) -> Endpoint:
    """Raises WebhookNotFound, also for a callback."""
    return _to_own_endpoint(await _get_row(connection, _GET_KEPT, endpoint_id, created_by))


async def change(
    connection: AsyncConnection, endpoint_id: str, wanted: EndpointChange, at: datetime, call: CallRecord
) -> Endpoint:
    await audit.add_call(connection, call)
    endpoint = await get_locked(connection, endpoint_id, call.origin.actor)
    if not wanted.only_disables:
        endpoint.refuse_unless_theirs(call.origin)
    changed = endpoint.changed(wanted, at, call.origin)
    await write(connection, changed)
    return changed


async def write(connection: AsyncConnection, changed: Endpoint) -> None:
    """What may change of an endpoint. It must be locked, so that nobody finds out meanwhile that it fails."""
    since = changed.failing_since
    values = {
        "endpoint_id": changed.id,
        "new_url": changed.url,
        "new_url_by_service": changed.url_by_service,
        "new_description": changed.description,
        "new_event_types": _to_json(changed.event_types),
        "new_state": changed.state,
        "new_disabled_because": changed.disabled_because,
        "new_failing_since": None if since is None else to_milliseconds(since),
        "at": to_milliseconds(changed.updated_at),
    }
    await connection.execute(_CHANGE, values)


async def rotate(
    connection: AsyncConnection, endpoint_id: str, secret: NewSecret, at: datetime, call: CallRecord
) -> Endpoint:
    """Raises WebhookLimitReached where more secrets would sign than there is room for."""
    await audit.add_call(connection, call)
    row = await _get_row(connection, _GET_LOCKED, endpoint_id, call.origin.actor)
    _to_own_endpoint(row).refuse_unless_theirs(call.origin)
    kept = await _overlaps(connection, row, secret.overlap_seconds)
    if len(kept) > _OVERLAPS_MAX:
        raise WebhookLimitReached
    values = {
        "endpoint_id": endpoint_id,
        "new_secret": secret.sealed,
        "new_previous_secrets": overlaps.write(kept),
        "new_previous_secret_until": max((overlap.until for overlap in kept), default=None),
        "at": to_milliseconds(at),
    }
    return to_endpoint((await connection.execute(_ROTATE, values)).one())


async def _overlaps(connection: AsyncConnection, row: Any, overlap_seconds: int) -> list[Overlap]:
    """Who rotates again has maybe not heard of the secret before, and signs with the one before that."""
    if overlap_seconds == 0:
        return []
    now = (await connection.execute(_NOW)).scalar_one()
    return [*overlaps.read(row.previous_secrets, now), Overlap(now + overlap_seconds * 1000, row.secret)]


async def begin_removal(connection: AsyncConnection, endpoint_id: str, call: CallRecord) -> None:
    """Write down that it is to go, and let nothing new come to it."""
    await audit.add_call(connection, call)
    disabled = await connection.execute(_DISABLE, {"endpoint_id": endpoint_id, "caller": call.origin.actor})
    if disabled.rowcount == 0:
        raise WebhookNotFound


async def remove(connection: AsyncConnection, endpoint_id: str, created_by: str) -> None:
    await connection.execute(_DELETE, {"endpoint_id": endpoint_id, "caller": created_by})


async def _get_row(connection: AsyncConnection, statement: Any, endpoint_id: str, created_by: str) -> Any:
    row = (await connection.execute(statement, {"endpoint_id": endpoint_id, "caller": created_by})).one_or_none()
    if row is None:
        raise WebhookNotFound
    return row


def _from_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "created_by": endpoint.created_by,
        "owner_sub": endpoint.owner,
        "order_id": endpoint.order_id,
        "url": endpoint.url,
        "url_by_service": endpoint.url_by_service,
        "description": endpoint.description,
        "event_types": _to_json(endpoint.event_types),
        "state": endpoint.state,
        "disabled_because": endpoint.disabled_because,
        "created_at": to_milliseconds(endpoint.created_at),
        "updated_at": to_milliseconds(endpoint.updated_at),
    }


def _to_own_endpoint(row: Any) -> Endpoint:
    """Raises WebhookNotFound for a callback."""
    if row.order_id is not None:
        raise WebhookNotFound
    return to_endpoint(row)


def to_endpoint(row: Any) -> Endpoint:
    until, since = row.previous_secret_until, row.failing_since
    return Endpoint(
        id=row.id,
        created_by=row.created_by,
        owner=row.owner_sub,
        url=row.url,
        description=row.description,
        event_types=frozenset(json.loads(row.event_types)),
        state=EndpointState(row.state),
        created_at=to_time(row.created_at),
        updated_at=to_time(row.updated_at),
        disabled_because=None if row.disabled_because is None else DisabledBecause(row.disabled_because),
        order_id=row.order_id,
        previous_secret_until=None if until is None else to_time(until),
        failing_since=None if since is None else to_time(since),
        url_by_service=row.url_by_service,
    )


def _to_json(event_types: frozenset[str]) -> str:
    return json.dumps(sorted(event_types))
