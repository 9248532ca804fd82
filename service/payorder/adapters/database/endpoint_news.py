"""Tell who manages an endpoint that it was disabled: at the caller's other endpoints, as an event of its own."""

import json

from sqlalchemy import bindparam, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import endpoint_deliveries
from payorder.adapters.database.clock import now_milliseconds
from payorder.adapters.database.ids import id_of, random_tail
from payorder.adapters.database.rows import to_time
from payorder.adapters.database.tables import NO_CALLBACK, webhook_endpoints
from payorder.domain.webhook import DISABLED_EVENT
from payorder.ports.endpoints import NewDelivery
from payorder.ports.outbox import DisabledEndpoint, EventBodies

_NOW = select(now_milliseconds())
_CREATED_BY = select(webhook_endpoints.c.created_by).where(webhook_endpoints.c.id == bindparam("endpoint_id"))
_KEPT = (
    select(webhook_endpoints.c.id)
    .where(webhook_endpoints.c.id == bindparam("endpoint_id"))
    .with_for_update(read=True, key_share=True)
)
_OTHERS = select(webhook_endpoints.c.id, webhook_endpoints.c.event_types).where(
    webhook_endpoints.c.created_by == bindparam("caller"),
    literal_column(NO_CALLBACK),
    webhook_endpoints.c.id != bindparam("endpoint_id"),
    webhook_endpoints.c.state == "enabled",
)


async def tell_disabled(connection: AsyncConnection, endpoint: DisabledEndpoint, bodies: EventBodies) -> None:
    caller = (await connection.execute(_CREATED_BY, {"endpoint_id": endpoint.id})).scalar_one()
    others = (await connection.execute(_OTHERS, {"caller": caller, "endpoint_id": endpoint.id})).all()
    hearing = [other.id for other in others if _hears(other.event_types)]
    if not hearing:
        return
    milliseconds = (await connection.execute(_NOW)).scalar_one()
    event_id, at = id_of(milliseconds, 0, random_tail()), to_time(milliseconds)
    body = bodies.disabled(event_id, endpoint, at)
    for other_id in hearing:
        new_id = id_of(milliseconds, 0, random_tail())
        told = NewDelivery(new_id, other_id, event_id, DISABLED_EVENT, body, at)
        # One that was deleted meanwhile is told nothing; the others, and all that is written with this, are.
        if (await connection.execute(_KEPT, {"endpoint_id": other_id})).one_or_none():
            await endpoint_deliveries.add(connection, told)


def _hears(event_types: str) -> bool:
    wanted = json.loads(event_types)
    return not wanted or "*" in wanted or DISABLED_EVENT in wanted
