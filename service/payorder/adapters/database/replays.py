"""Statements that find the events of an endpoint since a time, and have them sent to it again."""

from typing import Any

from sqlalchemy import Text, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import fan_out
from payorder.adapters.database.clock import now_milliseconds
from payorder.adapters.database.delivery_lanes import LANE_OF_DELIVERY
from payorder.adapters.database.ids import first_id
from payorder.adapters.database.lists import is_one_of
from payorder.adapters.database.rows import to_milliseconds
from payorder.adapters.database.tables import audit_log, events, orders, webhook_deliveries
from payorder.domain.webhook import EVENT_TYPES, DeliveryState, Endpoint
from payorder.ports.endpoints import Replayed, ReplayRequest
from payorder.ports.outbox import EventBodies

# How many entries of the audit log are looked at in a call, and how many events are sent again.
LOOKED_AT_MAX = 10_000
REPLAYED_MAX = 500

# Every event has its entry, and those are in the order of time: an index of the events' own would be written by every
# payment. What is not fanned out yet comes to the endpoint by itself.
_SINCE = audit_log.c.id > bindparam("after")
_LOOKED_AT = (
    select(
        audit_log.c.id,
        audit_log.c.object_id,
        (audit_log.c.kind + "." + audit_log.c.to_state).label("event_type"),
    )
    .where(_SINCE)
    .order_by(audit_log.c.id)
    .limit(LOOKED_AT_MAX)
    .subquery("looked_at")
)
_EVENTS = (
    select(*events.c, _LOOKED_AT.c.id.label("entry_id"))
    .join(events, (events.c.subject_id == _LOOKED_AT.c.object_id) & (events.c.type == _LOOKED_AT.c.event_type))
    .join(orders, orders.c.id == events.c.order_id)
    .where(
        events.c.fanned_out_at.is_not(None),
        is_one_of(events.c.type, "wanted_types"),
        orders.c.owner_sub == func.coalesce(bindparam("owner", type_=Text), orders.c.owner_sub),
    )
    .order_by(_LOOKED_AT.c.id)
    .limit(REPLAYED_MAX + 1)
)
# The last that was looked at, if there were so many.
_END = select(audit_log.c.id).where(_SINCE).order_by(audit_log.c.id).offset(LOOKED_AT_MAX - 1).limit(1)
_OF_THESE = (
    webhook_deliveries.c.endpoint_id == bindparam("of_endpoint"),
    is_one_of(webhook_deliveries.c.event_id, "ids"),
)
# As whoever finishes several of them does.
_LOCK = (
    select(webhook_deliveries.c.id).where(*_OF_THESE).order_by(webhook_deliveries.c.id).with_for_update(key_share=True)
)
_SEND_AGAIN = (
    update(webhook_deliveries)
    .where(*_OF_THESE)
    .values(
        state=DeliveryState.PENDING,
        lane=LANE_OF_DELIVERY,
        # An attempt that is under way does not end it any more, unless it arrives.
        claims=webhook_deliveries.c.claims + 1,
        next_attempt_at=now_milliseconds(),
    )
    .returning(webhook_deliveries.c.event_id)
)


async def replay_since(
    connection: AsyncConnection, endpoint: Endpoint, wanted: ReplayRequest, bodies: EventBodies
) -> Replayed:
    values = {
        "after": max(wanted.after or "", first_id(max(0, to_milliseconds(wanted.since)))),
        "owner": endpoint.owner,
        "wanted_types": _stored_types(endpoint),
    }
    found = (await connection.execute(_EVENTS, values)).all()
    rows = found[:REPLAYED_MAX]
    unwritten = await _send_again(connection, endpoint.id, rows)
    faults = await fan_out.write_for(connection, endpoint, unwritten, bodies) if unwritten else ()
    if len(found) > REPLAYED_MAX:
        go_on_after = rows[-1].entry_id
    else:
        go_on_after = (await connection.execute(_END, values)).scalar_one_or_none()
    return Replayed(len(rows) - len(faults), go_on_after)


async def _send_again(connection: AsyncConnection, endpoint_id: str, rows: Any) -> list[Any]:
    """Returns the rows of events that have no delivery to this endpoint yet."""
    if not rows:
        return []
    these = {"of_endpoint": endpoint_id, "ids": [row.id for row in rows]}
    if connection.dialect.name == "postgresql":
        await connection.execute(_LOCK, these)
    again = await connection.execute(_SEND_AGAIN, these)
    written = set(again.scalars())
    return [row for row in rows if row.id not in written]


def _stored_types(endpoint: Endpoint) -> list[str]:
    wanted = endpoint.event_types
    return [stored for stored, public in EVENT_TYPES.items() if not wanted or public in wanted]
