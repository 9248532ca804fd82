"""Statements that remove what nobody asks for any more: old deliveries, callbacks with them, and old secrets."""

from sqlalchemy import bindparam, delete, exists, literal_column, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.clock import now_milliseconds
from payorder.adapters.database.ids import first_id
from payorder.adapters.database.lists import is_one_of
from payorder.adapters.database.tables import ROTATION_OVERLAPS, webhook_deliveries, webhook_endpoints
from payorder.domain.webhook import DeliveryState, DisabledBecause

# How many deliveries are looked at in a call.
LOOKED_AT_MAX = 1000

_NOW = select(now_milliseconds())
_BETWEEN = (webhook_deliveries.c.id > bindparam("after"), webhook_deliveries.c.id <= bindparam("until"))
# The last that is looked at, if there are so many.
_END = (
    select(webhook_deliveries.c.id)
    .where(*_BETWEEN)
    .order_by(webhook_deliveries.c.id)
    .offset(LOOKED_AT_MAX - 1)
    .limit(1)
)
# An id is of the time of the event, which may be sent again much later. What waits for an endpoint that is disabled
# waits no longer than all else is kept.
_REMOVE = (
    delete(webhook_deliveries)
    .where(
        *_BETWEEN,
        webhook_deliveries.c.created_at < bindparam("before"),
        or_(
            webhook_deliveries.c.state != DeliveryState.PENDING,
            exists().where(
                webhook_endpoints.c.id == webhook_deliveries.c.endpoint_id,
                webhook_endpoints.c.state == "disabled",
                # A callback is disabled from the moment on in which it is to be sent.
                webhook_endpoints.c.disabled_because != DisabledBecause.DONE,
            ),
        ),
    )
    .returning(webhook_deliveries.c.endpoint_id)
)
_REMOVE_CALLBACKS = delete(webhook_endpoints).where(
    is_one_of(webhook_endpoints.c.id, "endpoint_ids"),
    webhook_endpoints.c.order_id.is_not(None),
    webhook_endpoints.c.state == "disabled",
)
_FORGET_SECRETS = (
    update(webhook_endpoints)
    .where(literal_column(ROTATION_OVERLAPS), webhook_endpoints.c.previous_secret_until <= _NOW.scalar_subquery())
    .values(previous_secrets=None, previous_secret_until=None)
)


async def remove_some(connection: AsyncConnection, kept_seconds: float, after: str) -> str | None:
    before = (await connection.execute(_NOW)).scalar_one() - round(kept_seconds * 1000)
    values = {"after": after, "until": first_id(max(0, before)), "before": before}
    end: str | None = (await connection.execute(_END, values)).scalar_one_or_none()
    removed = await connection.execute(_REMOVE, values | {"until": end or values["until"]})
    if endpoint_ids := sorted(set(removed.scalars())):
        await connection.execute(_REMOVE_CALLBACKS, {"endpoint_ids": endpoint_ids})
    return end


async def forget_secrets(connection: AsyncConnection) -> None:
    await connection.execute(_FORGET_SECRETS)
