# ruff: noqa: S608 - the statements are put together from this file alone
"""Statements on deliveries: claimed for a while, attempted by whoever claimed them, and then finished.

One that may be sent waits in a lane. A claim takes it out, until it is finished or its lease has ended; what is to be
attempted again, or was claimed by somebody who died, comes back into its lane when its time has come.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, literal_column, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import endpoint_news, overlaps
from payorder.adapters.database.clock import now_milliseconds
from payorder.adapters.database.delivery_lanes import LANE_OF_DELIVERY
from payorder.adapters.database.lists import is_one_of
from payorder.adapters.database.tables import (
    DELIVERY_IS_AWAY,
    DELIVERY_WAITS,
    webhook_deliveries,
    webhook_endpoints,
)
from payorder.domain.webhook import DisabledBecause, Dispatch
from payorder.ports.outbox import DisabledEndpoint, Ended, EventBodies, Rooms

_FAILING_MILLISECONDS_MAX = 5 * 24 * 3600 * 1000
# How many come back into their lanes in a statement, and how often that is done with a claim.
_COME_BACK_MAX, _COME_BACK_TIMES = 2000, 5

_BACK = (
    select(webhook_deliveries.c.id)
    .where(
        literal_column(DELIVERY_IS_AWAY),
        webhook_deliveries.c.next_attempt_at <= select(now_milliseconds()).scalar_subquery(),
    )
    .order_by(webhook_deliveries.c.next_attempt_at)
    .limit(_COME_BACK_MAX)
    .with_for_update(skip_locked=True)
    .cte("back")
)
_COME_BACK = (
    update(webhook_deliveries).where(webhook_deliveries.c.id.in_(select(_BACK.c.id))).values(lane=LANE_OF_DELIVERY)
)

# The lanes in which something waits, one after the other by the index: it costs as much as there are of them, not as
# much as waits. What waits for an endpoint that is disabled stays, but a callback is done as soon as it is to be sent.
# The lane of all callbacks is no endpoint's.
_lanes = f"""
WITH RECURSIVE lanes (lane) AS (
    SELECT * FROM (
        SELECT lane FROM webhook_deliveries WHERE {DELIVERY_WAITS} AND lane > %(after)s ORDER BY lane LIMIT 1
    ) AS first
    UNION ALL
    SELECT (
        SELECT following.lane FROM webhook_deliveries AS following
        WHERE {DELIVERY_WAITS} AND following.lane > lanes.lane
        ORDER BY following.lane LIMIT 1
    )
    FROM lanes WHERE lanes.lane IS NOT NULL
)
"""
_is_served = """coalesce((
    SELECT state = 'enabled' OR disabled_because = 'done'
    FROM webhook_endpoints AS endpoint WHERE endpoint.id = %(lane)s
), true)"""
_lane_as_id = 'lanes.lane COLLATE "default"'
_now = "(SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT))"

# 1 behind which lane, 2 how many are wanted of some, as JSON, 3 how many of any other, 4 how many in all, 5 the lease.
_CLAIM = f"""
{_lanes % {"after": "$1"}}, due AS MATERIALIZED (
    SELECT chosen.id, lanes.lane FROM lanes
    CROSS JOIN LATERAL (
        SELECT id FROM webhook_deliveries
        WHERE {DELIVERY_WAITS} AND lane = lanes.lane
        ORDER BY next_attempt_at LIMIT coalesce(CAST($2::jsonb ->> lanes.lane AS bigint), $3)
        FOR UPDATE SKIP LOCKED
    ) AS chosen
    WHERE lanes.lane IS NOT NULL AND {_is_served % {"lane": _lane_as_id}}
    LIMIT $4
)
UPDATE webhook_deliveries SET lane = NULL, claims = claims + 1, next_attempt_at = {_now} + $5
FROM due WHERE webhook_deliveries.id = due.id
RETURNING webhook_deliveries.id, endpoint_id, due.lane AS from_lane, claims, attempts, event_id, body
"""

# The same on SQLite, where nobody else writes meanwhile: first which lanes, then of each of them what.
_WAITING_ON_SQLITE = text(
    f"""
    {_lanes % {"after": ":after"}}
    SELECT lane FROM lanes WHERE lane IS NOT NULL AND {_is_served % {"lane": "lanes.lane"}}
    """
)
_IN_LANE = (
    select(webhook_deliveries.c.id)
    .where(literal_column(DELIVERY_WAITS), webhook_deliveries.c.lane == bindparam("of_lane"))
    .order_by(webhook_deliveries.c.next_attempt_at)
    .limit(bindparam("at_most"))
)
_CLAIM_OF_ONE = (
    update(webhook_deliveries)
    .where(webhook_deliveries.c.id.in_(_IN_LANE.scalar_subquery()))
    .values(
        lane=None,
        claims=webhook_deliveries.c.claims + 1,
        next_attempt_at=now_milliseconds() + bindparam("lease"),
    )
    .returning(
        webhook_deliveries.c.id,
        webhook_deliveries.c.endpoint_id,
        bindparam("of_lane").label("from_lane"),
        webhook_deliveries.c.claims,
        webhook_deliveries.c.attempts,
        webhook_deliveries.c.event_id,
        webhook_deliveries.c.body,
    )
)
_ENDPOINTS = select(
    webhook_endpoints.c.id,
    webhook_endpoints.c.created_by,
    webhook_endpoints.c.url,
    webhook_endpoints.c.url_by_service,
    webhook_endpoints.c.disabled_because,
    webhook_endpoints.c.failing_since,
    webhook_endpoints.c.secret,
    webhook_endpoints.c.previous_secrets,
    now_milliseconds().label("now"),
).where(is_one_of(webhook_endpoints.c.id, "endpoint_ids"))

# Whose word counts: that of who claimed it last, unless it is over. That it has arrived counts whoever says it.
_counts = """(
    delivery.state = 'pending' AND delivery.claims = ended.claim
    OR delivery.state != 'delivered' AND ended.new_state = 'delivered'
)"""
# 1 and 2 delivery and claim; 3 and 4 its new state and in how many milliseconds it is due again; 5 whether it was sent;
# 6 class of the answer. An attempt counts once, also when this is repeated, and also when somebody else was quicker.
_FINISH = f"""
WITH ended AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bool[], $6::smallint[])
        AS ended (id, claim, new_state, retry, was_sent, status_class)
), locked AS MATERIALIZED (
    -- Whoever locks several deliveries does so in the order of their ids, or two would wait for each other.
    SELECT id FROM webhook_deliveries WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE
), finished AS (
    UPDATE webhook_deliveries AS delivery
    SET attempts = delivery.attempts + CAST(ended.was_sent AS int),
        state = CASE WHEN {_counts} THEN ended.new_state ELSE delivery.state END,
        lane = CASE WHEN NOT ({_counts}) THEN delivery.lane END,
        next_attempt_at = CASE
            WHEN NOT ({_counts}) THEN delivery.next_attempt_at
            WHEN ended.new_state = 'pending' THEN {_now} + ended.retry
        END
    FROM ended JOIN locked ON locked.id = ended.id
    WHERE delivery.id = ended.id AND NOT EXISTS (
        SELECT FROM webhook_attempts AS attempt
        WHERE attempt.delivery_id = delivery.id AND attempt.claim = ended.claim
    )
    RETURNING delivery.id, delivery.attempts, ended.claim, ended.new_state, ended.was_sent, ended.status_class
)
INSERT INTO webhook_attempts (delivery_id, number, claim, at, status_class, delivered)
SELECT id, attempts, claim, {_now}, status_class, new_state = 'delivered' FROM finished WHERE was_sent
"""

# The same on SQLite, one after the other.
_counts_on_sqlite = """(
    state = 'pending' AND claims = :claim OR state != 'delivered' AND :new_state = 'delivered'
)"""
_FINISH_ONE = text(
    f"""
    UPDATE webhook_deliveries
    SET attempts = attempts + :was_sent,
        state = CASE WHEN {_counts_on_sqlite} THEN :new_state ELSE state END,
        lane = CASE WHEN NOT ({_counts_on_sqlite}) THEN lane END,
        next_attempt_at = CASE
            WHEN NOT ({_counts_on_sqlite}) THEN next_attempt_at
            WHEN :new_state = 'pending' THEN CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) + :retry
        END
    WHERE id = :id AND NOT EXISTS (SELECT 1 FROM webhook_attempts WHERE delivery_id = :id AND claim = :claim)
    """
)
_RECORD_ONE = text(
    """
    INSERT INTO webhook_attempts (delivery_id, number, claim, at, status_class, delivered)
    SELECT id, attempts, :claim, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), :status_class,
        :new_state = 'delivered'
    FROM webhook_deliveries WHERE id = :id
    ON CONFLICT DO NOTHING
    """
)

# In one order, because what follows changes some of them one after the other.
_LOCK = (
    select(webhook_endpoints.c.id)
    .where(is_one_of(webhook_endpoints.c.id, "endpoint_ids"))
    .order_by(webhook_endpoints.c.id)
    .with_for_update(key_share=True)
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
_DISABLE = (
    update(webhook_endpoints)
    .where(is_one_of(webhook_endpoints.c.id, "endpoint_ids"), webhook_endpoints.c.state == "enabled")
    .values(state="disabled", disabled_because=bindparam("because"), updated_at=now_milliseconds())
    .returning(webhook_endpoints.c.id)
)


async def claim(connection: AsyncConnection, rooms: Rooms) -> list[Dispatch]:
    for _ in range(_COME_BACK_TIMES):
        if (await connection.execute(_COME_BACK)).rowcount < _COME_BACK_MAX:
            break
    is_postgresql = connection.dialect.name == "postgresql"
    claimed = await (_claim(connection, rooms) if is_postgresql else _claim_on_sqlite(connection, rooms))
    if not claimed:
        return []
    endpoint_ids = sorted({row.endpoint_id for row in claimed})
    rows = await connection.execute(_ENDPOINTS, {"endpoint_ids": endpoint_ids})
    # What was deleted or stopped in this very moment is not sent: its lease brings it back to where it belongs.
    served = [row for row in rows if row.disabled_because != DisabledBecause.ADMINISTRATOR]
    endpoints = {row.id: (row, _sealed_secrets(row)) for row in served}
    return [_to_dispatch(row, *endpoints[row.endpoint_id]) for row in claimed if row.endpoint_id in endpoints]


async def finish(connection: AsyncConnection, ended: Sequence[Ended], bodies: EventBodies) -> list[DisabledEndpoint]:
    finish_each = _finish if connection.dialect.name == "postgresql" else _finish_on_sqlite
    for some in _in_turn(ended):
        await finish_each(connection, some)
    disabled = await _judge_endpoints(connection, ended)
    for endpoint in disabled:
        await endpoint_news.tell_disabled(connection, endpoint, bodies)
    return disabled


def _in_turn(ended: Sequence[Ended]) -> Sequence[Sequence[Ended]]:
    """Each delivery once at a time: whoever has claimed one again may have attempted it twice by now."""
    turns: list[list[Ended]] = []
    times: Counter[str] = Counter()
    for each in ended:
        if times[each.delivery_id] == len(turns):
            turns.append([])
        turns[times[each.delivery_id]].append(each)
        times[each.delivery_id] += 1
    return turns


async def _claim(connection: AsyncConnection, rooms: Rooms) -> Sequence[Any]:
    lease = round(rooms.lease_seconds * 1000)
    values = (rooms.after, json.dumps(dict(rooms.busy)), rooms.each, rooms.at_most, lease)
    return (await connection.exec_driver_sql(_CLAIM, values)).all()


async def _claim_on_sqlite(connection: AsyncConnection, rooms: Rooms) -> Sequence[Any]:
    claimed: list[Any] = []
    lease = round(rooms.lease_seconds * 1000)
    for lane in (await connection.execute(_WAITING_ON_SQLITE, {"after": rooms.after})).scalars().all():
        wanted = min(rooms.busy.get(lane, rooms.each), rooms.at_most - len(claimed))
        if wanted > 0:
            claimed += await connection.execute(_CLAIM_OF_ONE, {"of_lane": lane, "at_most": wanted, "lease": lease})
    return claimed


async def _finish(connection: AsyncConnection, ended: Sequence[Ended]) -> None:
    names = ("delivery_id", "claim", "state")
    ids, claims, states = ([getattr(each, name) for each in ended] for name in names)
    retries = [_retry_milliseconds(each) for each in ended]
    sent, classes = ([getattr(each, name) for each in ended] for name in ("was_sent", "status_class"))
    await connection.exec_driver_sql(_FINISH, (ids, claims, states, retries, sent, classes))


async def _finish_on_sqlite(connection: AsyncConnection, ended: Sequence[Ended]) -> None:
    rows = [
        {
            "id": each.delivery_id,
            "claim": each.claim,
            "new_state": each.state,
            "retry": _retry_milliseconds(each),
            "was_sent": int(each.was_sent),
            "status_class": each.status_class,
        }
        for each in ended
    ]
    await connection.execute(_FINISH_ONE, rows)
    if sent := [row for row in rows if row["was_sent"]]:
        await connection.execute(_RECORD_ONE, sent)


async def _judge_endpoints(connection: AsyncConnection, ended: Sequence[Ended]) -> list[DisabledEndpoint]:
    """One answer that it wanted is enough for an endpoint not to be failing."""
    heard = {each.endpoint_id for each in ended if each.is_delivered}
    failed = {each.endpoint_id for each in ended if each.was_sent} - heard
    disabled: list[DisabledEndpoint] = []
    if failed or any(each.disables for each in ended):
        await connection.execute(_LOCK, {"endpoint_ids": sorted({each.endpoint_id for each in ended})})
    if heard:
        await connection.execute(_HEAR_AGAIN, {"endpoint_ids": sorted(heard)})
    for because in sorted({each.disables for each in ended if each.disables}):
        ids = sorted({each.endpoint_id for each in ended if each.disables is because})
        rows = await connection.execute(_DISABLE, {"endpoint_ids": ids, "because": because})
        disabled += [DisabledEndpoint(row.id, because) for row in rows]
    if failed:
        rows = await connection.execute(_DISABLE_FAILING, {"endpoint_ids": sorted(failed)})
        disabled += [DisabledEndpoint(row.id, DisabledBecause.FAILING) for row in rows]
        await connection.execute(_FAIL, {"endpoint_ids": sorted(failed)})
    return disabled


def _to_dispatch(row: Any, endpoint: Any, sealed_secrets: tuple[bytes, ...]) -> Dispatch:
    return Dispatch(
        delivery_id=row.id,
        endpoint_id=row.endpoint_id,
        caller=endpoint.created_by,
        lane=row.from_lane,
        claim=row.claims,
        number=row.attempts + 1,
        url=endpoint.url,
        event_id=row.event_id,
        body=row.body,
        sealed_secrets=sealed_secrets,
        is_failing=endpoint.failing_since is not None,
        url_by_service=endpoint.url_by_service,
    )


def _sealed_secrets(endpoint: Any) -> tuple[bytes, ...]:
    """The newest first: X-Webhook-Signature has room for one alone, and that is the endpoint's own."""
    if not endpoint.secret:
        return ()
    previous = overlaps.read(endpoint.previous_secrets, endpoint.now)
    return (endpoint.secret, *(overlap.sealed for overlap in reversed(previous)))


def _retry_milliseconds(ended: Ended) -> int | None:
    return None if ended.retry_seconds is None else round(ended.retry_seconds * 1000)
