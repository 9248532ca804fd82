"""Statements that find the events of an endpoint since a time, and have them sent to it again."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, func, literal_column, or_, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import fan_out
from payorder.adapters.database.endpoint_deliveries import SENT_AGAIN
from payorder.adapters.database.ids import first_id
from payorder.adapters.database.lists import is_one_of
from payorder.adapters.database.rows import to_milliseconds
from payorder.adapters.database.tables import audit_log, events, orders, webhook_deliveries
from payorder.domain.webhook import EVENT_TYPES, Endpoint
from payorder.ports.endpoints import Replayed, ReplayRequest
from payorder.ports.outbox import EventBodies

# How many entries of the audit log are looked at in a call, and how many events are sent again.
LOOKED_AT_MAX = 10_000
REPLAYED_MAX = 500

# Every event has its entry, and those are in the order of time: an index of the events' own would be written by every
# payment. What is not fanned out yet comes to the endpoint by itself.
_ENTRY = (
    audit_log.c.id,
    audit_log.c.object_id,
    (audit_log.c.kind + "." + audit_log.c.to_state).label("event_type"),
)
_LOOKED_AT = (
    select(*_ENTRY, func.row_number().over(order_by=audit_log.c.id).label("number"))
    .where(audit_log.c.id > bindparam("after"))
    .order_by(audit_log.c.id)
    .limit(LOOKED_AT_MAX)
    .subquery("looked_at")
)
# An owner's are looked for order by order, so that nothing tells of what others do: neither how many calls it takes nor
# where they stop. An order is looked at even if its entries were archived, but of the first there may be none left.
_OWN_ORDERS = (
    select(orders.c.id)
    .where(orders.c.owner_sub == bindparam("owner"), orders.c.id >= bindparam("after_order"))
    .order_by(orders.c.id)
    .limit(LOOKED_AT_MAX + 1)
    .subquery("own")
)
_OWN_LOOKED_AT = (
    select(
        *_ENTRY,
        func.coalesce(audit_log.c.id, _OWN_ORDERS.c.id).label("place"),
        func.row_number().over(order_by=(_OWN_ORDERS.c.id, audit_log.c.seq)).label("number"),
    )
    .select_from(_OWN_ORDERS.outerjoin(audit_log, audit_log.c.chain == _OWN_ORDERS.c.id))
    .where(or_(_OWN_ORDERS.c.id > bindparam("after_order"), audit_log.c.seq > bindparam("after_seq")))
    .order_by(_OWN_ORDERS.c.id, audit_log.c.seq)
    .limit(LOOKED_AT_MAX)
    .subquery("looked_at")
)
# Where the call before has stopped: at an entry, or at an order without any. What is neither is before all of them, and
# so is what is another owner's: whoever makes up a place does not learn what there is.
_PLACE = union_all(
    select(audit_log.c.chain, audit_log.c.seq)
    .join(orders, orders.c.id == audit_log.c.chain)
    .where(audit_log.c.id == bindparam("place"), orders.c.owner_sub == bindparam("owner")),
    select(orders.c.id, literal_column("0")).where(
        orders.c.id == bindparam("place"), orders.c.owner_sub == bindparam("owner")
    ),
)


def _is_wanted(entry: Any) -> ColumnElement[bool]:
    return and_(
        events.c.subject_id == entry.object_id,
        events.c.type == entry.event_type,
        entry.id > bindparam("since"),
        events.c.fanned_out_at.is_not(None),
        is_one_of(events.c.type, "wanted_types"),
    )


def _is_found(entry: Any) -> ColumnElement[bool]:
    """Or is the last that is looked at, if there are so many: whoever asks for it afterwards may get another one."""
    return or_(events.c.id.is_not(None), entry.number == LOOKED_AT_MAX)


_FOUND = (
    select(*events.c, _LOOKED_AT.c.id.label("place"), _LOOKED_AT.c.number)
    .outerjoin(events, _is_wanted(_LOOKED_AT.c))
    .where(_is_found(_LOOKED_AT.c))
    .order_by(_LOOKED_AT.c.number)
    .limit(REPLAYED_MAX + 1)
)
_OWN_FOUND = (
    select(*events.c, _OWN_LOOKED_AT.c.place, _OWN_LOOKED_AT.c.number)
    .outerjoin(events, _is_wanted(_OWN_LOOKED_AT.c))
    .where(_is_found(_OWN_LOOKED_AT.c))
    .order_by(_OWN_LOOKED_AT.c.number)
    .limit(REPLAYED_MAX + 1)
)
_OF_THESE = (
    webhook_deliveries.c.endpoint_id == bindparam("of_endpoint"),
    is_one_of(webhook_deliveries.c.event_id, "ids"),
)
# As whoever finishes several of them does.
_LOCK = (
    select(webhook_deliveries.c.id).where(*_OF_THESE).order_by(webhook_deliveries.c.id).with_for_update(key_share=True)
)
_SEND_AGAIN = update(webhook_deliveries).where(*_OF_THESE).values(SENT_AGAIN).returning(webhook_deliveries.c.event_id)


async def replay_since(
    connection: AsyncConnection, endpoint: Endpoint, wanted: ReplayRequest, bodies: EventBodies
) -> Replayed:
    found = await _find(connection, endpoint, wanted)
    looked_at = found[:REPLAYED_MAX]
    rows = [row for row in looked_at if row.id is not None]
    unwritten = await _send_again(connection, endpoint.id, rows)
    faults = await fan_out.write_for(connection, endpoint, unwritten, bodies) if unwritten else ()
    may_be_more = len(found) > REPLAYED_MAX or (found and found[-1].number == LOOKED_AT_MAX)
    return Replayed(len(rows) - len(faults), looked_at[-1].place if may_be_more else None)


async def _find(connection: AsyncConnection, endpoint: Endpoint, wanted: ReplayRequest) -> Sequence[Any]:
    since = first_id(max(0, to_milliseconds(wanted.since)))
    values: dict[str, Any] = {"since": since, "wanted_types": _stored_types(endpoint)}
    if endpoint.owner is None:
        values["after"] = max(wanted.after or "", since)
        return (await connection.execute(_FOUND, values)).all()
    values["owner"] = endpoint.owner
    place = await connection.execute(_PLACE, {"place": wanted.after or "", "owner": endpoint.owner})
    values["after_order"], values["after_seq"] = place.one_or_none() or ("", 0)
    return (await connection.execute(_OWN_FOUND, values)).all()


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
