"""In which lane a delivery waits: that of its endpoint, or one with all callbacks that the same caller has asked for.

So whoever asks for ten thousand callbacks has no more turns than with one endpoint, and whoever looks for what is to be
sent goes through lanes, of which there are few, and not through callbacks. A callback that an administrator has stopped
waits in a lane of its own, which is served when it is enabled again.
"""

from sqlalchemy import ColumnElement, bindparam, case, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.tables import webhook_deliveries, webhook_endpoints
from payorder.domain.webhook import DisabledBecause

# Of the row `endpoint`.
LANE = f"""
CASE
    WHEN endpoint.order_id IS NULL OR endpoint.disabled_because = '{DisabledBecause.ADMINISTRATOR}' THEN endpoint.id
    ELSE 'callbacks of ' || endpoint.created_by
END
"""
_endpoint = webhook_endpoints.alias("endpoint")
_lane: ColumnElement[str] = literal_column(LANE)
# Of the delivery that is changed, and of one that is new, `to_endpoint`.
LANE_OF_DELIVERY = select(_lane).where(_endpoint.c.id == webhook_deliveries.c.endpoint_id).scalar_subquery()
LANE_OF_NEW = select(_lane).where(_endpoint.c.id == bindparam("to_endpoint")).scalar_subquery()
_MOVE = (
    update(webhook_deliveries)
    .where(webhook_deliveries.c.endpoint_id == bindparam("of_endpoint"))
    .values(lane=case((webhook_deliveries.c.lane.is_not(None), LANE_OF_DELIVERY)))
)


async def move(connection: AsyncConnection, callback_id: str) -> None:
    """What waits for a callback, once that was stopped or is no longer."""
    await connection.execute(_MOVE, {"of_endpoint": callback_id})
