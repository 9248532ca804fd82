"""Statements on deliveries, for whoever manages the endpoint: reading them, and having them made again."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Text, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.clock import now_milliseconds
from payorder.adapters.database.delivery_lanes import LANE_OF_DELIVERY, LANE_OF_NEW
from payorder.adapters.database.rows import to_milliseconds, to_time
from payorder.adapters.database.tables import webhook_attempts, webhook_deliveries
from payorder.domain.errors import RateLimited, WebhookNotFound
from payorder.domain.webhook import TEST_EVENT, Attempt, Delivery, DeliveryState
from payorder.ports.endpoints import Delivered, DeliveryFilter, FoundDeliveries, NewDelivery
from payorder.ports.store import PageRequest

# How many are looked at for a page of those in one state, none of which need be in it.
LOOKED_AT_MAX = 10_000
_ATTEMPTS_SHOWN = 20
# An endpoint may have had more of them than one statement can remove in its time.
_REMOVED_AT_ONCE = 5000
_MINUTE_SECONDS = 60
# Behind all ids.
_LAST = "g"

# All but the body, which may be long.
_COLUMNS = [column for column in webhook_deliveries.c if column.name != "body"]
_BETWEEN = (
    webhook_deliveries.c.endpoint_id == bindparam("of_endpoint"),
    webhook_deliveries.c.id < bindparam("below"),
)
_LOOKED_AT = (
    select(*_COLUMNS)
    .where(*_BETWEEN)
    .order_by(webhook_deliveries.c.id.desc())
    .limit(LOOKED_AT_MAX)
    .subquery("looked_at")
)
_FITTING = (
    select(_LOOKED_AT)
    .where(or_(bindparam("of_state", type_=Text()).is_(None), _LOOKED_AT.c.state == bindparam("of_state")))
    .order_by(_LOOKED_AT.c.id.desc())
    .limit(bindparam("rows"))
)
# The last that was looked at, if there were so many.
_END = (
    select(webhook_deliveries.c.id)
    .where(*_BETWEEN)
    .order_by(webhook_deliveries.c.id.desc())
    .offset(LOOKED_AT_MAX - 1)
    .limit(1)
)
_ATTEMPTS = (
    select(webhook_attempts)
    .join(webhook_deliveries, webhook_deliveries.c.id == webhook_attempts.c.delivery_id)
    .where(
        webhook_deliveries.c.id.in_(bindparam("of_deliveries", expanding=True)),
        webhook_attempts.c.number > webhook_deliveries.c.attempts - _ATTEMPTS_SHOWN,
    )
)
_ANY = select(webhook_deliveries.c.id).where(webhook_deliveries.c.endpoint_id == bindparam("of_endpoint")).limit(1)
_ADD = insert(webhook_deliveries).values(
    state=DeliveryState.PENDING, lane=LANE_OF_NEW, next_attempt_at=now_milliseconds()
)
# Of the newest: that of an endpoint which hears of much there may be more is no harm.
_NEWEST = (
    select(webhook_deliveries.c.event_type, webhook_deliveries.c.created_at)
    .where(webhook_deliveries.c.endpoint_id == bindparam("of_endpoint"))
    .order_by(webhook_deliveries.c.id.desc())
    .limit(100)
    .subquery("newest")
)
_TESTS = select(func.count()).where(_NEWEST.c.event_type == TEST_EVENT, _NEWEST.c.created_at > bindparam("since"))
_GET = select(*_COLUMNS).where(webhook_deliveries.c.id == bindparam("delivery_id"))
# What a delivery becomes that is replayed.
SENT_AGAIN = {
    "state": DeliveryState.PENDING,
    "lane": LANE_OF_DELIVERY,
    # An attempt that is under way does not end it any more, unless it arrives.
    "claims": webhook_deliveries.c.claims + 1,
    "next_attempt_at": now_milliseconds(),
}
_REPLAY = (
    update(webhook_deliveries)
    .where(
        webhook_deliveries.c.id == bindparam("delivery_id"),
        webhook_deliveries.c.endpoint_id == bindparam("of_endpoint"),
    )
    .values(SENT_AGAIN)
    .returning(*_COLUMNS)
)
_SOME = (
    select(webhook_deliveries.c.id)
    .where(webhook_deliveries.c.endpoint_id == bindparam("of_endpoint"))
    .limit(_REMOVED_AT_ONCE)
)
_REMOVE_SOME = delete(webhook_deliveries).where(webhook_deliveries.c.id.in_(_SOME))


async def remove_some(connection: AsyncConnection, endpoint_id: str) -> bool:
    """Of an endpoint that gets no more; whether there may be more to remove."""
    removed = await connection.execute(_REMOVE_SOME, {"of_endpoint": endpoint_id})
    return removed.rowcount == _REMOVED_AT_ONCE


async def add(connection: AsyncConnection, delivery: NewDelivery) -> None:
    await connection.execute(_ADD, _from_new(delivery))


async def refuse_more_tests(connection: AsyncConnection, test: NewDelivery, per_minute_max: int) -> None:
    """Raises RateLimited."""
    since = to_milliseconds(test.at) - _MINUTE_SECONDS * 1000
    tests = await connection.execute(_TESTS, {"of_endpoint": test.endpoint_id, "since": since})
    if tests.scalar_one() >= per_minute_max:
        raise RateLimited("webhook test", _MINUTE_SECONDS)


async def has_any(connection: AsyncConnection, endpoint_id: str) -> bool:
    return (await connection.execute(_ANY, {"of_endpoint": endpoint_id})).one_or_none() is not None


async def get(connection: AsyncConnection, delivery_id: str) -> Delivered:
    row = (await connection.execute(_GET, {"delivery_id": delivery_id})).one()
    return (await _with_attempts(connection, [row]))[0]


async def find(connection: AsyncConnection, wanted: DeliveryFilter, page: PageRequest) -> FoundDeliveries:
    values = {
        "of_endpoint": wanted.endpoint_id,
        "below": page.after or _LAST,
        "of_state": wanted.state,
        "rows": page.size + 1,
    }
    rows = (await connection.execute(_FITTING, values)).all()
    found = await _with_attempts(connection, rows[: page.size])
    if len(rows) > page.size:
        return FoundDeliveries(found, found[-1].delivery.id)
    end = await connection.execute(_END, values)
    return FoundDeliveries(found, end.scalar_one_or_none())


async def replay(connection: AsyncConnection, endpoint_id: str, delivery_id: str) -> Delivered:
    """Raises WebhookNotFound."""
    values = {"delivery_id": delivery_id, "of_endpoint": endpoint_id}
    row = (await connection.execute(_REPLAY, values)).one_or_none()
    if row is None:
        raise WebhookNotFound
    return (await _with_attempts(connection, [row]))[0]


async def _with_attempts(connection: AsyncConnection, rows: Sequence[Any]) -> list[Delivered]:
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    for row in await connection.execute(_ATTEMPTS, {"of_deliveries": [row.id for row in rows]}) if rows else ():
        attempts[row.delivery_id].append(Attempt(row.number, to_time(row.at), row.delivered, row.status_class))
    return [Delivered(_to_delivery(row), sorted(attempts[row.id], key=lambda attempt: attempt.number)) for row in rows]


def _from_new(delivery: NewDelivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "endpoint_id": delivery.endpoint_id,
        "to_endpoint": delivery.endpoint_id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "order_id": delivery.order_id,
        "body": delivery.body,
        "created_at": to_milliseconds(delivery.at),
    }


def _to_delivery(row: Any) -> Delivery:
    return Delivery(
        id=row.id,
        endpoint_id=row.endpoint_id,
        event_id=row.event_id,
        event_type=row.event_type,
        order_id=row.order_id,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        next_attempt_at=None if row.next_attempt_at is None else to_time(row.next_attempt_at),
        created_at=to_time(row.created_at),
    )
