"""Events as those who watch read them.

An order's row is locked while its events are numbered and written, so that they are committed in the order of their
numbers: whoever has seen number n has seen all before it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.rows import to_time
from payorder.adapters.database.tables import events, orders
from payorder.ports.events import OrderEvent

_AFTER = (
    select(events)
    .where(events.c.order_id == bindparam("of_order"), events.c.seq > bindparam("after"))
    .order_by(events.c.seq)
    .limit(bindparam("rows"))
)
_NEWEST = select(orders.c.id, orders.c.event_seq).where(orders.c.id.in_(bindparam("order_ids", expanding=True)))


async def list_after(connection: AsyncConnection, order_id: str, after: int, at_most: int) -> list[OrderEvent]:
    rows = await connection.execute(_AFTER, {"of_order": order_id, "after": after, "rows": at_most})
    return [_to_event(row) for row in rows]


async def newest(connection: AsyncConnection, order_ids: Collection[str]) -> Mapping[str, int]:
    rows = await connection.execute(_NEWEST, {"order_ids": list(order_ids)})
    return {row.id: row.event_seq for row in rows}


def _to_event(row: Any) -> OrderEvent:
    return OrderEvent(
        sequence=row.seq,
        id=row.id,
        type=row.type,
        subject_id=row.subject_id,
        previous_status=row.from_state,
        actor=row.actor,
        at=to_time(row.created_at),
    )
