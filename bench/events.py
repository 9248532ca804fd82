"""Paid orders with their events, written by the database itself, and the endpoints that are to hear of them."""

import asyncio
import time
from typing import Any

import asyncpg

from bench.load.calls import AMOUNT_MINOR, CURRENCY
from bench.stage import OWNER
from payorder.adapters.sealing import FernetBox
from payorder.adapters.system import new_id
from payorder.config import Settings
from payorder.domain.secret import Secret

EVENTS_OF_ORDER = 2
# Of every endpoint here.
SECRET = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
_MASKED = '{"object":"card","name":"J. Doe","number":"************4242","exp_month":12,"exp_year":2035}'
_UUID = "CAST(gen_random_uuid() AS text)"
_IDS = f"SELECT {_UUID} AS id, {_UUID} AS payment FROM generate_series(1, $1)"
_NOW = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
_ZEROS = "decode(repeat('00', 32), 'hex')"
_ADD = f"""
WITH ids AS MATERIALIZED ({_IDS}), ordered AS (
    INSERT INTO orders (
        id, owner_sub, status, currency, currency_digits, total_minor, metadata, latest_payment_id, paid_payment_id,
        event_seq, audit_seq, audit_hash, audit_previous, created_at, updated_at
    )
    SELECT id, '{OWNER}', 'approved', '{CURRENCY}', 2, {AMOUNT_MINOR}, '{{}}', payment, payment, 2, 0, {_ZEROS},
        {_ZEROS}, {_NOW}, {_NOW}
    FROM ids
), paid AS (
    INSERT INTO payments (
        id, order_id, status, currency, currency_digits, amount_minor, processor, processor_reference, captured_minor,
        owner_sub, caller, reply_code, reply, source_kind, source_last4, source_masked, created_at, claimed_at,
        settled_at
    )
    SELECT payment, id, 'succeeded', '{CURRENCY}', 2, {AMOUNT_MINOR}, 'sandbox', 'sandbox_' || payment, {AMOUNT_MINOR},
        '{OWNER}', '{OWNER}', 0, convert_to('reply', 'UTF8'), 'card', '4242', '{_MASKED}', {_NOW}, {_NOW}, {_NOW}
    FROM ids
), received AS (
    INSERT INTO receipts (id, payment_id, order_id, created_at) SELECT payment, payment, id, {_NOW} FROM ids
)
INSERT INTO events (order_id, seq, id, type, subject_id, from_state, actor, created_at)
SELECT id, seq, {_UUID}, kind, CASE seq WHEN 1 THEN payment ELSE id END, from_state, '{OWNER}',
    {_NOW}
FROM ids,
    (VALUES (1, 'payment.succeeded', 'processing'), (2, 'order.approved', 'placed')) AS happened (seq, kind, from_state)
"""
# Callbacks are older than endpoints that are added later, and so are their ids.
_ADD_CALLBACKS = f"""
INSERT INTO webhook_endpoints (
    id, created_by, owner_sub, order_id, after_seq, url, event_types, state, created_at, updated_at
)
SELECT '00000000' || substr({_UUID}, 9), '{OWNER}', '{OWNER}', id, 0, 'http://127.0.0.1:1/', '[]', 'enabled',
    created_at, created_at
FROM orders
"""
# Conditions on deliveries.
IS_DUE = "state = 'pending' AND attempts = 0"
WAITS_FOR_A_RETRY = "state = 'pending' AND attempts = 1"
_AT_ONCE = 5000
_TIMEOUT_SECONDS = 600


async def add_orders(connection: Any, count: int) -> None:
    """Each has two events."""
    for start in range(0, count, _AT_ONCE):
        await connection.execute(_ADD, min(_AT_ONCE, count - start), timeout=_TIMEOUT_SECONDS)


async def add_endpoint(connection: Any, url: str) -> str:
    """For everybody's orders; its id."""
    endpoint_id = new_id()
    sealed = FernetBox(Settings(issuer="urn:none", jwks="none", env="development").sealing_keys).seal(SECRET)
    await connection.execute(
        "INSERT INTO webhook_endpoints (id, created_by, url, event_types, state, secret, created_at, updated_at)"
        " VALUES ($1, $2, $3, '[]', 'enabled', $4, 0, 0)",
        *(endpoint_id, OWNER, url, sealed),
    )
    return endpoint_id


async def add_callbacks(connection: Any) -> None:
    """One for each order that there is, from before its first event."""
    await connection.execute(_ADD_CALLBACKS, timeout=_TIMEOUT_SECONDS)


async def enable(connection: Any) -> None:
    await connection.execute("UPDATE webhook_endpoints SET state = 'enabled', disabled_because = NULL")


async def until_count(connection: asyncpg.Connection, statement: str, wanted: int, *, timeout_seconds: float) -> float:
    """The seconds until the count was `wanted`. Raises TimeoutError."""
    began = time.perf_counter()
    async with asyncio.timeout(timeout_seconds):
        while (await connection.fetchval(statement) or 0) < wanted:  # noqa: ASYNC110 - it happens in other processes
            await asyncio.sleep(0.1)
    return time.perf_counter() - began
