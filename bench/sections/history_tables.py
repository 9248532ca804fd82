"""Orders of years, written by the database itself: nine of ten paid, with everything that a payment leaves behind.

What is loaded is checked by nothing but the tables' constraints; foreign keys and triggers rest meanwhile, and so does
the wait for the disk. Nothing is dropped: the indexes grow as they do in service.
"""

import asyncio
import shutil
from pathlib import Path

import asyncpg

from bench.load.calls import AMOUNT_MINOR, CURRENCY
from bench.stage import OWNER

# Tables, indexes and the log that is written on the way.
BYTES_PER_ORDER = 5000
# Every so many-th order is the measured owner's.
OWNER_EVERY = 40
_AT_ONCE = 250_000
_AT_MS = 1_700_000_000_000
_ORDER_ID = "'00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0')"
_PAYMENT_ID = "'00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0')"
# Of twenty orders one is cancelled, one is placed, and the others are paid.
_STATUS = "CASE n % 20 WHEN 1 THEN 'placed' WHEN 2 THEN 'cancelled' ELSE 'approved' END"
_IS_PAID = "n % 20 NOT IN (1, 2)"
_AT_HEX = f"lpad(to_hex({_AT_MS} + n), 12, '0')"
# Of the entry's time, as the service makes them: dashboards and seals find a time by it.
_ENTRY_ID = (
    f"substr({_AT_HEX}, 1, 8) || '-' || substr({_AT_HEX}, 9) || '-7' || lpad(to_hex(seq), 3, '0') || '-a000-' || "
    "lpad(to_hex(n), 12, '0')"
)
_HASH = "sha256(int8send(n))"
_MASKED = '{"object":"card","name":"J. Doe","number":"************4242","exp_month":12,"exp_year":2035}'

_ORDERS = f"""
INSERT INTO orders (
    id, owner_sub, status, currency, currency_digits, total_minor, metadata,
    latest_payment_id, paid_payment_id, event_seq, audit_seq, audit_hash, audit_previous, created_at, updated_at
)
SELECT {_ORDER_ID}, CASE WHEN n % {OWNER_EVERY} = 0 THEN '{OWNER}' ELSE 'customer-' || n % 9973 END, {_STATUS},
    '{CURRENCY}', 2, {AMOUNT_MINOR}, '{{}}', CASE WHEN {_IS_PAID} THEN {_PAYMENT_ID} END,
    CASE WHEN {_IS_PAID} THEN {_PAYMENT_ID} END, 2, 3, {_HASH}, {_HASH}, {_AT_MS} + n, {_AT_MS} + n
FROM generate_series($1::bigint, $2::bigint) AS n
"""
_PAYMENTS = f"""
INSERT INTO payments (
    id, order_id, status, currency, currency_digits, amount_minor, processor, processor_reference, captured_minor,
    owner_sub, caller, reply_code, reply, source_kind, source_last4, source_masked, created_at, claimed_at, settled_at
)
SELECT {_PAYMENT_ID}, {_ORDER_ID}, 'succeeded', '{CURRENCY}', 2, {AMOUNT_MINOR}, 'sandbox', 'sandbox_' || {_PAYMENT_ID},
    {AMOUNT_MINOR}, '{OWNER}', '{OWNER}', 0, convert_to(repeat('r', 150), 'UTF8'), 'card', '4242', '{_MASKED}',
    {_AT_MS} + n, {_AT_MS} + n, {_AT_MS} + n
FROM generate_series($1::bigint, $2::bigint) AS n WHERE {_IS_PAID}
"""
_RECEIPTS = f"""
INSERT INTO receipts (id, payment_id, order_id, created_at)
SELECT {_PAYMENT_ID}, {_PAYMENT_ID}, {_ORDER_ID}, {_AT_MS} + n
FROM generate_series($1::bigint, $2::bigint) AS n WHERE {_IS_PAID}
"""
_EVENTS = f"""
INSERT INTO events (order_id, seq, id, type, subject_id, from_state, actor, created_at, fanned_out_at)
SELECT {_ORDER_ID}, seq, {_ENTRY_ID}, kind, CASE seq WHEN 1 THEN {_PAYMENT_ID} ELSE {_ORDER_ID} END, from_state,
    'payorder', {_AT_MS} + n, {_AT_MS} + n
FROM generate_series($1::bigint, $2::bigint) AS n,
    (VALUES (1, 'payment.succeeded', 'processing'), (2, 'order.approved', 'placed')) AS happened (seq, kind, from_state)
WHERE {_IS_PAID}
"""
_AUDIT_LOG = f"""
INSERT INTO audit_log (id, chain, seq, at, actor, kind, object_id, from_state, to_state, outcome, prev_hash, hash)
SELECT {_ENTRY_ID}, {_ORDER_ID}, seq, {_AT_MS} + n, actor, kind,
    CASE kind WHEN 'order' THEN {_ORDER_ID} ELSE {_PAYMENT_ID} END,
    from_state, to_state, 'done', {_HASH}, {_HASH}
FROM generate_series($1::bigint, $2::bigint) AS n,
    (VALUES (1, '{OWNER}', 'payment', NULL, 'processing'),
        (2, 'payorder', 'payment', 'processing', 'succeeded'),
        (3, 'payorder', 'order', 'placed', 'approved')) AS done (seq, actor, kind, from_state, to_state)
WHERE {_IS_PAID}
"""

_IS_ADDED_UP = """
SELECT (SELECT max(until_at) FROM statistics) > (SELECT at FROM audit_log ORDER BY id DESC LIMIT 1)
"""


class NoRoom(Exception):
    """The disk has not enough room for the history."""


async def fill(database_url: str, folder: Path, count: int) -> None:
    """Raises NoRoom."""
    free = shutil.disk_usage(folder).free
    if free < count * BYTES_PER_ORDER:
        raise NoRoom(f"{count:,} orders need about {count * BYTES_PER_ORDER / 2**30:.0f} GiB in {folder}; see --orders")
    await _set(database_url, "ALTER SYSTEM SET max_wal_size = '8GB'")
    # Two at a time, the largest first.
    await asyncio.gather(
        _insert_all(database_url, count, _PAYMENTS, _RECEIPTS),
        _insert_all(database_url, count, _ORDERS, _EVENTS, _AUDIT_LOG),
    )
    await _set(database_url, "ALTER SYSTEM RESET max_wal_size")
    connection = await asyncpg.connect(database_url)
    await connection.execute("VACUUM ANALYZE", timeout=3600)
    await connection.execute("CHECKPOINT", timeout=3600)
    await connection.close()


async def added_up(database_url: str) -> None:
    """Until the service has made its sums of the history, which it does once: that is not what is measured."""
    connection = await asyncpg.connect(database_url)
    while not await connection.fetchval(_IS_ADDED_UP):  # noqa: ASYNC110 - it happens in another process
        await asyncio.sleep(1)
    await connection.close()


def order_id(number: int) -> str:
    """Of the history's order with that number, counted from one."""
    return f"00000000-0000-7000-8000-{number:012x}"


async def _insert_all(database_url: str, count: int, *statements: str) -> None:
    connection = await asyncpg.connect(
        database_url, server_settings={"session_replication_role": "replica", "synchronous_commit": "off"}
    )
    for statement in statements:
        for first in range(1, count + 1, _AT_ONCE):
            await connection.execute(statement, first, min(first + _AT_ONCE - 1, count), timeout=3600)
    await connection.close()


async def _set(database_url: str, command: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(command)
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()
