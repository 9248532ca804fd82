# ruff: noqa: S608 - the statements are put together from this file alone
"""Statements that turn events into deliveries: one for each endpoint that hears of them, in the same transaction."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, bindparam, literal_column, select, text, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.clock import now_milliseconds
from payorder.adapters.database.delivery_lanes import LANE
from payorder.adapters.database.ids import id_of, random_tail
from payorder.adapters.database.lists import is_one_of
from payorder.adapters.database.rows import to_milliseconds, to_order, to_payment, to_refund, to_time
from payorder.adapters.database.tables import (
    EVENT_FAULTS_MAX,
    EVENT_IS_PENDING,
    events,
    orders,
    payments,
    receipts,
    refunds,
    webhook_endpoints,
)
from payorder.domain.event import CALLBACK_STATUS, Event
from payorder.domain.webhook import EVENT_TYPES, DisabledBecause, Endpoint
from payorder.ports.outbox import EventBodies, FannedOut

# Who listens is told of which orders there is something new: up to so many ids in one word, as 8000 bytes fit.
CHANNEL = "payorder_events"
_IDS_IN_ONE_WORD = 200

_PENDING = (
    select(
        *events.c,
        select(orders.c.owner_sub).where(orders.c.id == events.c.order_id).scalar_subquery().label("owner_sub"),
    )
    .where(literal_column(EVENT_IS_PENDING))
    .order_by(events.c.created_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
)
# And tell who listens, in the same statement, of which orders there is something new.
_MARK = f"""
WITH told AS (
    SELECT pg_notify('{CHANNEL}', word) FROM unnest($3::text[]) AS word
), marked AS (
    UPDATE events SET fanned_out_at = CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)
    FROM unnest($1::text[], $2::bigint[]) AS done (order_id, seq)
    WHERE events.order_id = done.order_id AND events.seq = done.seq
)
SELECT count(*) FROM told
"""
_IS_ONE_EVENT = (events.c.order_id == bindparam("of_order"), events.c.seq == bindparam("of_seq"))
_MARK_ONE = update(events).where(*_IS_ONE_EVENT).values(fanned_out_at=now_milliseconds())
_COUNT_FAULT = update(events).where(*_IS_ONE_EVENT).values(faults=events.c.faults + 1)

_ENABLED: ColumnElement[bool] = literal_column("webhook_endpoints.state = 'enabled'")
_HEARING = select(
    webhook_endpoints.c.id,
    webhook_endpoints.c.owner_sub,
    webhook_endpoints.c.order_id,
    webhook_endpoints.c.after_seq,
    webhook_endpoints.c.event_types,
).where(_ENABLED)
# Of everybody's orders, of their owners' orders, and callbacks of the orders.
_ENDPOINTS = union_all(
    _HEARING.where(webhook_endpoints.c.owner_sub.is_(None), webhook_endpoints.c.order_id.is_(None)),
    _HEARING.where(is_one_of(webhook_endpoints.c.owner_sub, "owners"), webhook_endpoints.c.order_id.is_(None)),
    _HEARING.where(is_one_of(webhook_endpoints.c.order_id, "order_ids"), webhook_endpoints.c.order_id.is_not(None)),
)
_COMPLETE = (
    update(webhook_endpoints)
    .where(is_one_of(webhook_endpoints.c.id, "endpoint_ids"), webhook_endpoints.c.state == "enabled")
    .values(state="disabled", disabled_because=DisabledBecause.DONE, updated_at=now_milliseconds())
    .returning(webhook_endpoints.c.id)
)

_ORDERS = select(orders).where(is_one_of(orders.c.id, "ids"))
_PAYMENTS = (
    select(payments, receipts.c.created_at.label("receipt_at"))
    .outerjoin(receipts, receipts.c.id == payments.c.id)
    .where(is_one_of(payments.c.id, "ids"))
)
_REFUNDS = (
    select(refunds, payments.c.currency, payments.c.currency_digits, payments.c.processor_reference.label("reference"))
    .join(payments, payments.c.id == refunds.c.payment_id)
    .where(is_one_of(refunds.c.id, "ids"))
)

# An endpoint that was deleted meanwhile gets nothing; one that is found stays until this is committed.
_ADD = f"""
INSERT INTO webhook_deliveries (
    id, endpoint_id, event_id, event_type, order_id, body, state, lane, next_attempt_at, created_at
)
SELECT new.id, endpoint.id, new.event_id, new.event_type, new.order_id, new.body, 'pending', {LANE}, moment.at,
    moment.at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[])
    AS new (id, endpoint_id, event_id, event_type, order_id, body)
CROSS JOIN (SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS at) AS moment
JOIN webhook_endpoints AS endpoint ON endpoint.id = new.endpoint_id
FOR KEY SHARE OF endpoint
ON CONFLICT DO NOTHING
"""
_ADD_ON_SQLITE = text(
    f"""
    INSERT INTO webhook_deliveries (
        id, endpoint_id, event_id, event_type, order_id, body, state, lane, next_attempt_at, created_at
    )
    SELECT :id, endpoint.id, :event_id, :event_type, :order_id, :body, 'pending', {LANE}, moment.at, moment.at
    FROM (SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) AS at) AS moment
    JOIN webhook_endpoints AS endpoint ON endpoint.id = :endpoint_id WHERE true
    ON CONFLICT DO NOTHING
    """
)


@dataclass(frozen=True, slots=True)
class _New:
    """A delivery to be written."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: str
    order_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class _Heard:
    """The row of an event, and of those that hear of it."""

    event: Any
    endpoints: Sequence[Any]
    callbacks: Sequence[Any]


@dataclass(slots=True)
class _Batch:
    """What is to be written. `answered` are callbacks, each by the first of the events that it waits for."""

    new: list[_New] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    faults: list[Exception] = field(default_factory=list)
    failed: list[Any] = field(default_factory=list)


async def fan_out(connection: AsyncConnection, bodies: EventBodies, at_most: int) -> FannedOut:
    pending = await _find(connection, at_most)
    if not pending:
        return FannedOut()
    batch = _Batch()
    heard = await _heard(connection, sorted(pending, key=lambda event: (event.order_id, event.seq)))
    if heard:
        batch = _rendered(heard, await _subjects(connection, heard), bodies)
        await _write(connection, batch)
    failed = {event.id for event in batch.failed}
    await _mark(connection, [event for event in pending if event.id not in failed])
    aside = tuple(event.id for event in batch.failed if event.faults + 1 >= EVENT_FAULTS_MAX)
    return FannedOut(len(pending), len(batch.new), tuple(batch.faults), aside)


async def write_for(
    connection: AsyncConnection, endpoint: Endpoint, rows: Sequence[Any], bodies: EventBodies
) -> Sequence[Exception]:
    """Write deliveries to one endpoint, of events that were fanned out before, as `rows`.

    Returns the faults of those that cannot be rendered.
    """
    heard = [_Heard(row, [endpoint], ()) for row in rows]
    batch = _rendered(heard, await _subjects(connection, heard), bodies)
    if batch.new:
        await _add(connection, batch.new)
    return batch.faults


async def _find(connection: AsyncConnection, at_most: int) -> Sequence[Any]:
    return (await connection.execute(_PENDING, {"at_most": at_most})).all()


async def _heard(connection: AsyncConnection, pending: Sequence[Any]) -> list[_Heard]:
    owners = sorted({event.owner_sub for event in pending})
    order_ids = sorted({event.order_id for event in pending})
    endpoints = (await connection.execute(_ENDPOINTS, {"owners": owners, "order_ids": order_ids})).all()
    of_owners = _grouped((endpoint for endpoint in endpoints if endpoint.order_id is None), "owner_sub")
    callbacks = _grouped(endpoints, "order_id")
    found = []
    for event in pending:
        possible = (*of_owners.get(None, ()), *of_owners.get(event.owner_sub, ()))
        endpoints = [endpoint for endpoint in possible if _wants(endpoint.event_types, event.type)]
        of_order = callbacks.get(event.order_id, ()) if event.type in CALLBACK_STATUS else ()
        waiting = [callback for callback in of_order if event.seq > (callback.after_seq or 0)]
        if endpoints or waiting:
            found.append(_Heard(event, endpoints, waiting))
    return found


@lru_cache(1024)
def _wants(event_types: str, stored_type: str) -> bool:
    wanted = json.loads(event_types)
    return not wanted or "*" in wanted or EVENT_TYPES.get(stored_type) in wanted


async def _subjects(connection: AsyncConnection, heard: Sequence[_Heard]) -> "_Subjects":
    events_ = [each.event for each in heard]
    refund_rows = await _by_id(connection, _REFUNDS, (each.subject_id for each in events_ if _kind(each) == "refund"))
    payment_ids = [each.subject_id for each in events_ if _kind(each) == "payment"]
    payment_ids += [refund.payment_id for refund in refund_rows.values()]
    return _Subjects(
        orders=await _by_id(connection, _ORDERS, (each.order_id for each in events_)),
        payments=await _by_id(connection, _PAYMENTS, payment_ids),
        refunds=refund_rows,
    )


@dataclass(frozen=True, slots=True)
class _Subjects:
    """The rows of what events tell of, by id."""

    orders: Mapping[str, Any]
    payments: Mapping[str, Any]
    refunds: Mapping[str, Any]

    def event_of(self, row: Any) -> Event:
        kind = _kind(row)
        refund = self.refunds[row.subject_id] if kind == "refund" else None
        payment = self.payments[refund.payment_id if refund else row.subject_id] if kind != "order" else None
        return Event(
            id=row.id,
            sequence=row.seq,
            type=row.type,
            from_state=row.from_state,
            actor=row.actor,
            at=to_time(row.created_at),
            order=to_order(self.orders[row.order_id]),
            payment=payment and to_payment(payment),
            refund=refund and to_refund(refund),
            receipt_at=to_time(payment.receipt_at) if payment and row.type == "payment.succeeded" else None,
        )


def _rendered(heard: Sequence[_Heard], subjects: _Subjects, bodies: EventBodies) -> _Batch:
    batch = _Batch()
    for each in heard:
        waiting = [endpoint for endpoint in each.callbacks if endpoint.id not in batch.answered]
        try:
            batch.new += _deliveries(subjects.event_of(each.event), each.endpoints, waiting, bodies)
        except Exception as fault:  # noqa: BLE001 - whatever is wrong with one event, the others go on
            batch.faults.append(fault)
            batch.failed.append(each.event)
        else:
            batch.answered |= {endpoint.id for endpoint in waiting}
    return batch


def _deliveries(event: Event, endpoints: Sequence[Any], callbacks: Sequence[Any], bodies: EventBodies) -> list[_New]:
    body = bodies.event(event) if endpoints else b""
    told = [(endpoint.id, body) for endpoint in endpoints]
    told += [(endpoint.id, bodies.callback(endpoint.id, event)) for endpoint in callbacks]
    at = to_milliseconds(event.at)
    return [
        _New(
            id=id_of(at, event.sequence, random_tail()),
            endpoint_id=endpoint_id,
            event_id=event.id,
            event_type=EVENT_TYPES[event.type],
            order_id=event.order.id,
            body=text_of,
        )
        for endpoint_id, text_of in told
    ]


async def _write(connection: AsyncConnection, batch: _Batch) -> None:
    if batch.answered:
        rows = await connection.execute(_COMPLETE, {"endpoint_ids": sorted(batch.answered)})
        answered_before = batch.answered - set(rows.scalars())
        batch.new = [new for new in batch.new if new.endpoint_id not in answered_before]
    if batch.new:
        await _add(connection, batch.new)
    if batch.failed:
        await connection.execute(_COUNT_FAULT, [_key(event) for event in batch.failed])


async def _mark(connection: AsyncConnection, done: Sequence[Any]) -> None:
    if done and connection.dialect.name == "sqlite":
        await connection.execute(_MARK_ONE, [_key(event) for event in done])
    elif done:
        keys = ([event.order_id for event in done], [event.seq for event in done])
        ids = sorted(set(keys[0]))
        words = [",".join(ids[start : start + _IDS_IN_ONE_WORD]) for start in range(0, len(ids), _IDS_IN_ONE_WORD)]
        await connection.exec_driver_sql(_MARK, (*keys, words))


def _key(event: Any) -> dict[str, Any]:
    return {"of_order": event.order_id, "of_seq": event.seq}


async def _add(connection: AsyncConnection, new: Sequence[_New]) -> None:
    rows = [{name: getattr(each, name) for name in _New.__slots__} for each in new]
    if connection.dialect.name == "sqlite":
        await connection.execute(_ADD_ON_SQLITE, rows)
        return
    await connection.exec_driver_sql(_ADD, tuple([row[name] for row in rows] for name in _New.__slots__))


async def _by_id(connection: AsyncConnection, statement: Any, ids: Iterable[str]) -> dict[str, Any]:
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    return {row.id: row for row in await connection.execute(statement, {"ids": wanted})}


def _grouped(rows: Iterable[Any], name: str) -> dict[str | None, list[Any]]:
    groups: dict[str | None, list[Any]] = {}
    for row in rows:
        groups.setdefault(getattr(row, name), []).append(row)
    return groups


def _kind(event: Any) -> str:
    """Of what the event's subject is: an order, a payment or a refund."""
    kind: str = event.type.partition(".")[0]
    return kind
