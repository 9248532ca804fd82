"""Statements on webhook endpoints of everybody, for administrators."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, bindparam, literal_column, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import audit, delivery_lanes, endpoint_deliveries, endpoints
from payorder.adapters.database.tables import NO_CALLBACK, webhook_endpoints
from payorder.domain.errors import WebhookNotFound
from payorder.domain.webhook import Endpoint
from payorder.ports.audit import CallRecord
from payorder.ports.endpoints import EndpointFilter, FoundEndpoints
from payorder.ports.store import PageRequest

# How many endpoints and callbacks are looked at for a page: of callbacks there may be one for every order.
LOOKED_AT_MAX = 10_000
# Behind all ids.
_LAST = "g"


def _fits(columns: Any) -> tuple[ColumnElement[bool], ...]:
    """What is not given does not matter."""
    is_any = bindparam("of_state", type_=Text()).is_(None)
    return columns.order_id.is_(None), or_(is_any, columns.state == bindparam("of_state"))


# All but the secrets, which are no administrator's business.
_COLUMNS = [column for column in webhook_endpoints.c if column.name not in ("secret", "previous_secrets")]
_BELOW = webhook_endpoints.c.id < bindparam("below")
_NO_CALLBACK: ColumnElement[bool] = literal_column(NO_CALLBACK)
_OF_CREATOR = (webhook_endpoints.c.created_by == bindparam("of_creator"), _NO_CALLBACK)
_NEWEST = select(*_COLUMNS).where(_BELOW).order_by(webhook_endpoints.c.id.desc()).limit(LOOKED_AT_MAX)
_LOOKED_AT = _NEWEST.subquery("looked_at")
_LOOKED_AT_OF_CREATOR = _NEWEST.where(*_OF_CREATOR).subquery("looked_at")
_FITTING = select(_LOOKED_AT).where(*_fits(_LOOKED_AT.c)).order_by(_LOOKED_AT.c.id.desc()).limit(bindparam("rows"))
_FITTING_OF_CREATOR = (
    select(_LOOKED_AT_OF_CREATOR)
    .where(*_fits(_LOOKED_AT_OF_CREATOR.c))
    .order_by(_LOOKED_AT_OF_CREATOR.c.id.desc())
    .limit(bindparam("rows"))
)
# The last that was looked at, if there were so many.
_END = (
    select(webhook_endpoints.c.id)
    .where(_BELOW)
    .order_by(webhook_endpoints.c.id.desc())
    .offset(LOOKED_AT_MAX - 1)
    .limit(1)
)
_END_OF_CREATOR = _END.where(*_OF_CREATOR)
# Whoever writes a delivery meanwhile need not wait.
_GET_LOCKED = (
    select(*_COLUMNS).where(webhook_endpoints.c.id == bindparam("endpoint_id")).with_for_update(key_share=True)
)


async def find(connection: AsyncConnection, wanted: EndpointFilter, page: PageRequest) -> FoundEndpoints:
    is_of_all = wanted.created_by is None
    values = {
        "below": page.after or _LAST,
        "of_creator": wanted.created_by,
        "of_state": wanted.state,
        "rows": page.size + 1,
    }
    rows = (await connection.execute(_FITTING if is_of_all else _FITTING_OF_CREATOR, values)).all()
    found = [endpoints.to_endpoint(row) for row in rows[: page.size]]
    if len(rows) > page.size:
        return FoundEndpoints(found, found[-1].id)
    end = await connection.execute(_END if is_of_all else _END_OF_CREATOR, values)
    return FoundEndpoints(found, end.scalar_one_or_none())


async def disable(connection: AsyncConnection, endpoint_id: str, at: datetime, call: CallRecord) -> Endpoint:
    await audit.add_call(connection, call)
    disabled = (await _get_locked(connection, endpoint_id)).disabled_by_administrator(at)
    await _write(connection, disabled)
    return disabled


async def enable(connection: AsyncConnection, endpoint_id: str, at: datetime, call: CallRecord) -> Endpoint:
    await audit.add_call(connection, call)
    endpoint = await _get_locked(connection, endpoint_id)
    # A callback is done as soon as there is its one delivery.
    is_done = endpoint.order_id is not None and await endpoint_deliveries.has_any(connection, endpoint_id)
    enabled = endpoint.enabled_by_administrator(at, is_done=is_done)
    await _write(connection, enabled)
    return enabled


async def _write(connection: AsyncConnection, changed: Endpoint) -> None:
    await endpoints.write(connection, changed)
    if changed.order_id is not None:
        await delivery_lanes.move(connection, changed.id)


async def _get_locked(connection: AsyncConnection, endpoint_id: str) -> Endpoint:
    """Raises WebhookNotFound."""
    row = (await connection.execute(_GET_LOCKED, {"endpoint_id": endpoint_id})).one_or_none()
    if row is None:
        raise WebhookNotFound
    return endpoints.to_endpoint(row)
