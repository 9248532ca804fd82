# ruff: noqa: S608 - the statements are put together from this file alone
"""Statements on deliveries: claimed for a while, attempted by whoever claimed them, and then finished."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, case, literal_column, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.clock import now_milliseconds
from payorder.adapters.database.lists import is_one_of
from payorder.adapters.database.tables import DELIVERY_IS_PENDING, webhook_deliveries, webhook_endpoints
from payorder.domain.webhook import DisabledBecause, Dispatch
from payorder.ports.outbox import DisabledEndpoint, Ended, Rooms

_FAILING_MILLISECONDS_MAX = 5 * 24 * 3600 * 1000

# The endpoints for which something waits, one after the other by the index: it costs as much as there are of them, not
# as much as waits. A callback is done once its one delivery was written, and that goes out nevertheless.
_waiting = f"""
WITH RECURSIVE waiting (endpoint_id) AS (
    SELECT * FROM (
        SELECT endpoint_id FROM webhook_deliveries
        WHERE {DELIVERY_IS_PENDING} AND endpoint_id > %(after)s
        ORDER BY endpoint_id LIMIT 1
    ) AS first
    UNION ALL
    SELECT (
        SELECT following.endpoint_id FROM webhook_deliveries AS following
        WHERE {DELIVERY_IS_PENDING} AND following.endpoint_id > waiting.endpoint_id
        ORDER BY following.endpoint_id LIMIT 1
    )
    FROM waiting WHERE waiting.endpoint_id IS NOT NULL
)
"""
_is_served = "(endpoint.state = 'enabled' OR endpoint.disabled_because = 'done')"
_now = "(SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT))"

# 1 behind which endpoint, 2 and 3 how many are wanted of some, 4 how many of any other, 5 how many in all, 6 the lease.
_CLAIM = f"""
{_waiting % {"after": "$1"}}, due AS MATERIALIZED (
    SELECT chosen.id FROM waiting
    LEFT JOIN unnest($2::text[], $3::bigint[]) AS busy (endpoint_id, room) ON busy.endpoint_id = waiting.endpoint_id
    CROSS JOIN LATERAL (
        SELECT id FROM webhook_deliveries
        WHERE {DELIVERY_IS_PENDING} AND endpoint_id = waiting.endpoint_id AND next_attempt_at <= {_now}
        ORDER BY next_attempt_at LIMIT coalesce(busy.room, $4)
        FOR UPDATE SKIP LOCKED
    ) AS chosen
    WHERE (SELECT {_is_served} FROM webhook_endpoints AS endpoint WHERE endpoint.id = waiting.endpoint_id)
    LIMIT $5
)
UPDATE webhook_deliveries SET attempts = attempts + 1, next_attempt_at = {_now} + $6
FROM due WHERE webhook_deliveries.id = due.id
RETURNING webhook_deliveries.id, endpoint_id, attempts, event_id, body
"""

# The same on SQLite, where nobody else writes meanwhile: first who, then for each of them what.
_WITH_DUE = text(
    f"""
    {_waiting % {"after": ":after"}}
    SELECT endpoint.id FROM waiting
    JOIN webhook_endpoints AS endpoint ON endpoint.id = waiting.endpoint_id AND {_is_served}
    WHERE EXISTS (
        SELECT 1 FROM webhook_deliveries
        WHERE {DELIVERY_IS_PENDING} AND endpoint_id = waiting.endpoint_id
            AND next_attempt_at <= CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    )
    """
)
_DUE = (
    select(webhook_deliveries.c.id)
    .where(
        literal_column(DELIVERY_IS_PENDING),
        webhook_deliveries.c.endpoint_id == bindparam("of_endpoint"),
        webhook_deliveries.c.next_attempt_at <= select(now_milliseconds()).scalar_subquery(),
    )
    .order_by(webhook_deliveries.c.next_attempt_at)
    .limit(bindparam("at_most"))
)
_CLAIM_OF_ONE = (
    update(webhook_deliveries)
    .where(webhook_deliveries.c.id.in_(_DUE.scalar_subquery()))
    .values(attempts=webhook_deliveries.c.attempts + 1, next_attempt_at=now_milliseconds() + bindparam("lease"))
    .returning(
        webhook_deliveries.c.id,
        webhook_deliveries.c.endpoint_id,
        webhook_deliveries.c.attempts,
        webhook_deliveries.c.event_id,
        webhook_deliveries.c.body,
    )
)
_ENDPOINTS = select(
    webhook_endpoints.c.id,
    webhook_endpoints.c.url,
    webhook_endpoints.c.failing_since,
    webhook_endpoints.c.secret,
    case((webhook_endpoints.c.previous_secret_until > now_milliseconds(), webhook_endpoints.c.previous_secret)).label(
        "previous_secret"
    ),
).where(is_one_of(webhook_endpoints.c.id, "endpoint_ids"))

# 1 to 3 delivery, attempt, whether it was sent; 4 and 5 its new state and in how many milliseconds it is due again;
# 6 class of the answer, 7 whether that was delivered.
_RECORD = f"""
INSERT INTO webhook_attempts (delivery_id, number, at, status_class, delivered)
SELECT delivery.id, ended.number, {_now}, ended.status_class, ended.new_state = 'delivered'
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::smallint[]) AS ended (id, number, new_state, status_class)
JOIN webhook_deliveries AS delivery ON delivery.id = ended.id
-- Whoever deletes the endpoint takes its deliveries along; those are not told of.
FOR KEY SHARE OF delivery
ON CONFLICT DO NOTHING
"""
_FINISH = f"""
UPDATE webhook_deliveries AS delivery
SET state = ended.new_state, attempts = delivery.attempts - CAST(ended.given_back AS int),
    next_attempt_at = CASE WHEN ended.new_state = 'pending' THEN {_now} + ended.retry END
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bool[])
    AS ended (id, number, new_state, retry, given_back)
WHERE delivery.id = ended.id AND delivery.attempts = ended.number AND delivery.state = 'pending'
"""

# The same on SQLite, one after the other.
_RECORD_ONE = text(
    """
    INSERT INTO webhook_attempts (delivery_id, number, at, status_class, delivered)
    SELECT id, :number, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), :status_class, :delivered
    FROM webhook_deliveries WHERE id = :id
    ON CONFLICT DO NOTHING
    """
)
_FINISH_ONE = text(
    """
    UPDATE webhook_deliveries SET state = :new_state, attempts = attempts - :given_back,
        next_attempt_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) + :retry
    WHERE id = :id AND attempts = :number AND state = 'pending'
    """
)

_HEAR_AGAIN = (
    update(webhook_endpoints)
    .where(is_one_of(webhook_endpoints.c.id, "endpoint_ids"), webhook_endpoints.c.failing_since.is_not(None))
    .values(failing_since=None)
)
_FAIL = (
    update(webhook_endpoints)
    .where(
        is_one_of(webhook_endpoints.c.id, "endpoint_ids"),
        webhook_endpoints.c.state == "enabled",
        webhook_endpoints.c.failing_since.is_(None),
    )
    .values(failing_since=now_milliseconds())
)
_DISABLE_FAILING = (
    update(webhook_endpoints)
    .where(
        is_one_of(webhook_endpoints.c.id, "endpoint_ids"),
        webhook_endpoints.c.state == "enabled",
        webhook_endpoints.c.failing_since <= now_milliseconds() - _FAILING_MILLISECONDS_MAX,
    )
    .values(state="disabled", disabled_because=DisabledBecause.FAILING, updated_at=now_milliseconds())
    .returning(webhook_endpoints.c.id)
)
_DISABLE_GONE = (
    update(webhook_endpoints)
    .where(is_one_of(webhook_endpoints.c.id, "endpoint_ids"), webhook_endpoints.c.state == "enabled")
    .values(state="disabled", disabled_because=DisabledBecause.GONE, updated_at=now_milliseconds())
    .returning(webhook_endpoints.c.id)
)


async def claim(connection: AsyncConnection, rooms: Rooms) -> list[Dispatch]:
    is_postgresql = connection.dialect.name == "postgresql"
    claimed = await (_claim(connection, rooms) if is_postgresql else _claim_on_sqlite(connection, rooms))
    if not claimed:
        return []
    endpoint_ids = sorted({row.endpoint_id for row in claimed})
    rows = await connection.execute(_ENDPOINTS, {"endpoint_ids": endpoint_ids})
    endpoints = {row.id: row for row in rows}
    return [_to_dispatch(row, endpoints[row.endpoint_id]) for row in claimed if row.endpoint_id in endpoints]


async def finish(connection: AsyncConnection, ended: Sequence[Ended]) -> list[DisabledEndpoint]:
    is_postgresql = connection.dialect.name == "postgresql"
    await (_finish(connection, ended) if is_postgresql else _finish_on_sqlite(connection, ended))
    return await _judge_endpoints(connection, [each for each in ended if each.was_sent])


async def _claim(connection: AsyncConnection, rooms: Rooms) -> Sequence[Any]:
    values = (rooms.after, list(rooms.busy), list(rooms.busy.values()), rooms.each, rooms.at_most)
    lease = round(rooms.lease_seconds * 1000)
    return (await connection.exec_driver_sql(_CLAIM, (*values, lease))).all()


async def _claim_on_sqlite(connection: AsyncConnection, rooms: Rooms) -> Sequence[Any]:
    claimed: list[Any] = []
    lease = round(rooms.lease_seconds * 1000)
    for endpoint_id in (await connection.execute(_WITH_DUE, {"after": rooms.after})).scalars().all():
        wanted = min(rooms.busy.get(endpoint_id, rooms.each), rooms.at_most - len(claimed))
        if wanted > 0:
            some = {"of_endpoint": endpoint_id, "at_most": wanted, "lease": lease}
            claimed += await connection.execute(_CLAIM_OF_ONE, some)
    return claimed


async def _finish(connection: AsyncConnection, ended: Sequence[Ended]) -> None:
    ids, numbers, states = ([getattr(each, name) for each in ended] for name in ("delivery_id", "number", "state"))
    retries = [_retry_milliseconds(each) for each in ended]
    await connection.exec_driver_sql(_FINISH, (ids, numbers, states, retries, [not each.was_sent for each in ended]))
    sent = [each for each in ended if each.was_sent]
    ids, numbers, states, classes = (
        [getattr(each, name) for each in sent] for name in ("delivery_id", "number", "state", "status_class")
    )
    await connection.exec_driver_sql(_RECORD, (ids, numbers, states, classes))


async def _finish_on_sqlite(connection: AsyncConnection, ended: Sequence[Ended]) -> None:
    rows = [
        {
            "id": each.delivery_id,
            "number": each.number,
            "new_state": each.state,
            "retry": _retry_milliseconds(each),
            "given_back": int(not each.was_sent),
        }
        for each in ended
    ]
    await connection.execute(_FINISH_ONE, rows)
    attempts = [
        {
            "id": each.delivery_id,
            "number": each.number,
            "status_class": each.status_class,
            "delivered": each.is_delivered,
        }
        for each in ended
        if each.was_sent
    ]
    if attempts:
        await connection.execute(_RECORD_ONE, attempts)


async def _judge_endpoints(connection: AsyncConnection, ended: Sequence[Ended]) -> list[DisabledEndpoint]:
    """One answer that it wanted is enough for an endpoint not to be failing."""
    heard = {each.endpoint_id for each in ended if each.is_delivered}
    failed = {each.endpoint_id for each in ended} - heard
    gone = {each.endpoint_id for each in ended if each.is_gone}
    disabled: list[DisabledEndpoint] = []
    if heard:
        await connection.execute(_HEAR_AGAIN, {"endpoint_ids": sorted(heard)})
    if gone:
        rows = await connection.execute(_DISABLE_GONE, {"endpoint_ids": sorted(gone)})
        disabled += [DisabledEndpoint(row.id, DisabledBecause.GONE) for row in rows]
    if failed:
        rows = await connection.execute(_DISABLE_FAILING, {"endpoint_ids": sorted(failed)})
        disabled += [DisabledEndpoint(row.id, DisabledBecause.FAILING) for row in rows]
        await connection.execute(_FAIL, {"endpoint_ids": sorted(failed)})
    return disabled


def _to_dispatch(row: Any, endpoint: Any) -> Dispatch:
    return Dispatch(
        delivery_id=row.id,
        endpoint_id=row.endpoint_id,
        number=row.attempts,
        url=endpoint.url,
        event_id=row.event_id,
        body=row.body,
        sealed_secrets=tuple(sealed for sealed in (endpoint.secret, endpoint.previous_secret) if sealed),
        is_failing=endpoint.failing_since is not None,
    )


def _retry_milliseconds(ended: Ended) -> int | None:
    return None if ended.retry_seconds is None else round(ended.retry_seconds * 1000)
