# ruff: noqa: S608 - the statements are put together from this file alone
"""What cannot be written, whatever the code above does: each constraint of tables.py refuses, on each engine."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, ForeignKeyConstraint, PrimaryKeyConstraint, UniqueConstraint, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from conftest import ENGINES, new_database
from payorder.adapters.database.engine import Database
from payorder.adapters.database.migrate import upgrade
from payorder.adapters.database.tables import (
    audit_heads,
    audit_log,
    audit_seals,
    events,
    findings,
    keyed_replies,
    metadata,
    orders,
    payments,
    receipts,
    refunds,
    statistics,
    webhook_attempts,
    webhook_deliveries,
    webhook_endpoints,
)
from payorder.local.postgres import EmbeddedPostgres

ORDER: dict[str, Any] = {
    "id": "free",
    "owner_sub": "alice",
    "status": "placed",
    "currency": "GBP",
    "currency_digits": 2,
    "total_minor": 4999,
    "metadata": "{}",
    "latest_payment_id": None,
    "audit_seq": 1,
    "audit_hash": b"hash",
    "audit_previous": b"previous",
    "active_payment_id": None,
    "paid_payment_id": None,
    "created_at": 0,
    "updated_at": 0,
}
PAYMENT: dict[str, Any] = {
    "id": "live",
    "order_id": "paying",
    "owner_sub": "alice",
    "status": "processing",
    "currency": "GBP",
    "currency_digits": 2,
    "amount_minor": 4999,
    "processor": "sandbox",
    "processor_reference": None,
    "captured_minor": 0,
    "refund_reserved_minor": 0,
    "refunded_minor": 0,
    "caller": "alice",
    "idempotency_key": None,
    "fingerprint": None,
    "reply": None,
    "next_poll_at": 1,
    "source_kind": "card",
    "source_last4": "4242",
    "source_masked": "{}",
    "source_fingerprint": b"sixteen bytes ..",
    "source_attempt": None,
    "owner_attempt": None,
    "created_at": 0,
    "claimed_at": 0,
    "settled_at": None,
}
REFUND: dict[str, Any] = {
    "id": "refunding",
    "payment_id": "won",
    "order_id": "paid",
    "amount_minor": 999,
    "status": "processing",
    "reason": "test",
    "processor": "sandbox",
    "processor_reference": None,
    "next_poll_at": 1,
    "created_at": 0,
    "settled_at": None,
}
FINAL = {"settled_at": 1, "next_poll_at": None, "reply": b"reply"}
SUCCEEDED = FINAL | {"status": "succeeded", "processor_reference": "ch_1", "captured_minor": 4999}
ORDERS = [
    ORDER,
    ORDER | {"id": "paying", "active_payment_id": "live", "latest_payment_id": "live"},
    ORDER | {"id": "paid", "status": "approved", "paid_payment_id": "won", "latest_payment_id": "won"},
]
PAYMENTS = [
    PAYMENT | {"idempotency_key": "key", "fingerprint": "f"},
    PAYMENT | SUCCEEDED | {"id": "won", "order_id": "paid", "refund_reserved_minor": 999, "refunded_minor": 1000},
    PAYMENT | FINAL | {"id": "lost", "order_id": "paid", "status": "failed", "source_attempt": 1, "owner_attempt": 1},
]
REFUNDS = [
    REFUND,
    REFUND
    | {
        "id": "refunded",
        "amount_minor": 1000,
        "status": "succeeded",
        "processor_reference": "re_1",
        "next_poll_at": None,
    },
]
RECEIPTS = [{"id": "won", "payment_id": "won", "order_id": "paid", "created_at": 0}]
EVENTS = [
    {
        "order_id": "paid",
        "seq": 1,
        "id": "event",
        "type": "order.approved",
        "subject_id": "paid",
        "from_state": "placed",
        "actor": "payorder",
        "created_at": 0,
    }
]
NEW_EVENT = "INSERT INTO events (order_id, seq, id, type, subject_id, from_state, actor, created_at)"
ENTRIES = [
    {
        "id": "first",
        "chain": "paid",
        "seq": 1,
        "at": 0,
        "actor": "alice",
        "kind": "order",
        "object_id": "paid",
        "to_state": "placed",
        "outcome": "done",
        "prev_hash": b"previous",
        "hash": b"hash",
    }
]
HEADS = [{"chain": "caller:alice", "seq": 1, "hash": b"hash"}]
SUMS = [
    {
        "until_at": 0,
        "kind": "order",
        "from_state": "",
        "to_state": "placed",
        "currency": "",
        "currency_digits": 0,
        "decline_code": "",
        "times": 1,
        "amount_minor": "0",
    }
]
SEALS = [
    {
        "number": 1,
        "from_at": 0,
        "until_at": 1,
        "entry_count": 1,
        "digest": b"digest",
        "prev_hash": b"previous",
        "key_id": "key",
        "signature": b"signature",
    }
]
FINDINGS = [{"kind": "amount_differs", "processor_reference": "ch_1", "payment_id": "won", "opened_at": 0}]
KEYED_REPLIES = [
    {
        "caller": "alice",
        "method": "CancelOrder",
        "idempotency_key": "key",
        "fingerprint": "f",
        "order_id": "free",
        "reply": b"reply",
        "created_at": 0,
    }
]
ENDPOINTS = [
    {
        "id": "endpoint",
        "created_by": "alice",
        "url": "https://receiver.example/",
        "event_types": "[]",
        "state": "enabled",
        "secret": b"encrypted",
        "created_at": 0,
        "updated_at": 0,
    }
]
DELIVERIES = [
    {
        "id": "delivery",
        "endpoint_id": "endpoint",
        "event_id": "event",
        "event_type": "order.statusChanged",
        "order_id": "paid",
        "body": b"{}",
        "state": "pending",
        "next_attempt_at": 0,
        "created_at": 0,
    }
]
ATTEMPTS = [{"delivery_id": "delivery", "number": 1, "claim": 1, "at": 0, "delivered": False}]
ROWS = {
    orders: ORDERS,
    payments: PAYMENTS,
    keyed_replies: KEYED_REPLIES,
    refunds: REFUNDS,
    receipts: RECEIPTS,
    events: EVENTS,
    audit_log: ENTRIES,
    audit_heads: HEADS,
    statistics: SUMS,
    audit_seals: SEALS,
    findings: FINDINGS,
    webhook_endpoints: ENDPOINTS,
    webhook_deliveries: DELIVERIES,
    webhook_attempts: ATTEMPTS,
}

PROCESSING = "'processing', NULL, 0, NULL, 1, NULL"
UNKNOWN = "'unknown', NULL, 0, NULL, 1, NULL"
A_SUCCESS = "'succeeded', 'ch_2', 4999, 1, NULL, 'reply'"
A_FAILURE = "'failed', NULL, 0, 1, NULL, 'reply'"


def new_payment(order: str, state: str) -> str:
    """`state` is one of the rows of values above."""
    return (
        "INSERT INTO payments (id, order_id, currency, currency_digits, amount_minor, processor, caller, owner_sub,"
        " source_kind, source_last4, source_masked, created_at, claimed_at,"
        " status, processor_reference, captured_minor, settled_at, next_poll_at, reply)"
        f" VALUES ('new', '{order}', 'GBP', 2, 4999, 'sandbox', 'alice', 'alice', 'card', '4242', '', 0, 0, {state})"
    )


def new_entry(**changed: str) -> str:
    """Values as SQL."""
    row = {
        "id": "'second'",
        "chain": "'paid'",
        "seq": "2",
        "at": "0",
        "actor": "'alice'",
        "kind": "'order'",
        "object_id": "'paid'",
        "to_state": "'approved'",
        "outcome": "'done'",
        "prev_hash": "'hash'",
        "hash": "'hash'",
        **changed,
    }
    return f"INSERT INTO audit_log ({', '.join(row)}) VALUES ({', '.join(row.values())})"


def new_reply(caller: str, method: str, order: str) -> str:
    return f"INSERT INTO keyed_replies VALUES ('{caller}', '{method}', 'key', 'f', '{order}', 'reply', 0)"


def on_order(name: str, change: str) -> str:
    return f"UPDATE orders SET {change} WHERE id = '{name}'"


NEW_SUM = "INSERT INTO statistics VALUES (0, 'order', '', 'placed', '', 0, '', 1, '0')"
NEW_SEAL = "INSERT INTO audit_seals VALUES (1, 0, 1, 0, 'digest', 'previous', 'key', 'signature')"


def on_payment(name: str, change: str) -> str:
    return f"UPDATE payments SET {change} WHERE id = '{name}'"


def on_refund(name: str, change: str) -> str:
    return f"UPDATE refunds SET {change} WHERE id = '{name}'"


# What would be wrong -> the constraint that refuses it, the statement.
NEW_ENDPOINT = (
    "INSERT INTO webhook_endpoints (id, created_by, order_id, url, event_types, state, secret, created_at, updated_at)"
    " VALUES ('{id}', 'alice', {order}, 'https://receiver.example/', '[]', 'enabled', {secret}, 0, 0)"
)
NEW_DELIVERY = (
    "INSERT INTO webhook_deliveries (id, endpoint_id, event_id, event_type, body, state, next_attempt_at, created_at)"
    " VALUES ('{id}', 'endpoint', '{event}', 'webhook.test', '', 'pending', 0, 0)"
)


def on_endpoint(change: str) -> str:
    return f"UPDATE webhook_endpoints SET {change}"


def on_delivery(change: str) -> str:
    return f"UPDATE webhook_deliveries SET {change}"


ILLEGAL: dict[str, tuple[str, str]] = {
    "a second live payment": ("ux_payments_one_live", new_payment("paying", PROCESSING)),
    "a live payment beside one nobody knows of": ("ux_payments_one_live", new_payment("paying", UNKNOWN)),
    "a live payment of a paid order": ("ux_payments_one_live", new_payment("paid", PROCESSING)),
    "a second success": ("ux_payments_one_live", new_payment("paid", A_SUCCESS)),
    "a failure that becomes a second success": (
        "ux_payments_one_live",
        on_payment("lost", "status = 'succeeded', processor_reference = 'ch_2', captured_minor = 4999"),
    ),
    "one charge for two payments": (
        "ux_payments_processor_processor_reference",
        new_payment("free", A_SUCCESS).replace("ch_2", "ch_1"),
    ),
    "one key for two payments": (
        "ux_payments_key",
        on_payment("lost", "idempotency_key = 'key', fingerprint = 'f'"),
    ),
    "two payments of one id": ("pk_payments", on_payment("lost", "id = 'live'")),
    "two orders of one id": ("pk_orders", on_order("paying", "id = 'paid'")),
    "two refunds of one id": ("pk_refunds", on_refund("refunded", "id = 'refunding'")),
    "a payment of no order": ("fk_payments_order_id", new_payment("nowhere", PROCESSING)),
    "a payment that loses its order": ("fk_payments_order_id", "DELETE FROM orders WHERE id = 'paying'"),
    "a payment that moves to no order": ("fk_payments_order_id", on_payment("live", "order_id = 'nowhere'")),
    "cancelling while paying": ("ck_orders_active_when_placed", on_order("paying", "status = 'cancelled'")),
    "approving while paying": (
        "ck_orders_active_when_placed",
        on_order("paying", "status = 'approved', paid_payment_id = 'live'"),
    ),
    "paying what is paid": ("ck_orders_active_when_placed", on_order("paid", "active_payment_id = 'live'")),
    "approved without a payment": ("ck_orders_paid_when_approved", on_order("free", "status = 'approved'")),
    "shipped without a payment": ("ck_orders_paid_when_approved", on_order("free", "status = 'shipped'")),
    "delivered without a payment": ("ck_orders_paid_when_approved", on_order("free", "status = 'delivered'")),
    "approved, and its payment taken away": (
        "ck_orders_paid_when_approved",
        on_order("paid", "paid_payment_id = NULL"),
    ),
    "placed although it is paid": ("ck_orders_unpaid_when_placed", on_order("free", "paid_payment_id = 'won'")),
    "placed again after it was paid": ("ck_orders_unpaid_when_placed", on_order("paid", "status = 'placed'")),
    "an order of no known status": ("ck_orders_status", on_order("free", "status = 'refunded'")),
    "an order status in upper case": ("ck_orders_status", on_order("free", "status = 'PLACED'")),
    "a currency of two letters": ("ck_orders_currency", on_order("free", "currency = 'GB'")),
    "a currency of four letters": ("ck_orders_currency", on_order("free", "currency = 'GBPX'")),
    "a negative exponent": ("ck_orders_currency_digits", on_order("free", "currency_digits = -1")),
    "five minor digits": ("ck_orders_currency_digits", on_order("free", "currency_digits = 5")),
    "an order for nothing": ("ck_orders_total_positive", on_order("free", "total_minor = 0")),
    "an order of negative money": ("ck_orders_total_positive", on_order("free", "total_minor = -4999")),
    "one key that cancelled two orders": ("pk_keyed_replies", new_reply("alice", "CancelOrder", "paid")),
    "a reply about no order": ("fk_keyed_replies_order_id", "UPDATE keyed_replies SET order_id = 'nowhere'"),
    "a reply under an empty key": (
        "ck_keyed_replies_idempotency_key",
        "UPDATE keyed_replies SET idempotency_key = ''",
    ),
    "a payment of no known status": ("ck_payments_status", on_payment("lost", "status = 'refunded'")),
    "a payment's currency of two letters": ("ck_payments_currency", on_payment("live", "currency = 'GB'")),
    "a payment's five minor digits": ("ck_payments_currency_digits", on_payment("live", "currency_digits = 5")),
    "a payment of nothing": ("ck_payments_amount_positive", on_payment("live", "amount_minor = 0")),
    "a source of a third kind": ("ck_payments_source_kind", on_payment("live", "source_kind = 'cash'")),
    "a whole card number": ("ck_payments_source_last4", on_payment("live", "source_last4 = '1234567890123456'")),
    "five digits of a number": ("ck_payments_source_last4", on_payment("live", "source_last4 = '24242'")),
    "an attempt with no source": (
        "ck_payments_attempt_of_source",
        on_payment("live", "source_fingerprint = NULL, source_attempt = 1"),
    ),
    "an attempt before the first": ("ck_payments_source_attempt_positive", on_payment("live", "source_attempt = 0")),
    "a fingerprint as long as a number": (
        "ck_payments_source_fingerprint",
        on_payment("live", "source_fingerprint = CAST('a fingerprint of 19' AS BYTEA)"),
    ),
    "two attempts with a card that have seen the same": (
        "ux_payments_source_attempt",
        on_payment("live", "source_attempt = 1"),
    ),
    "two attempts of an owner that have seen the same": (
        "ux_payments_owner_attempt",
        on_payment("live", "owner_attempt = 1"),
    ),
    "an owner's attempt before the first": (
        "ck_payments_owner_attempt_positive",
        on_payment("live", "owner_attempt = 0"),
    ),
    "no digits of a number": ("ck_payments_source_last4", on_payment("live", "source_last4 = ''")),
    "a success without a charge": (
        "ck_payments_charged_when_succeeded",
        on_payment("won", "processor_reference = NULL"),
    ),
    "a charge of a failed payment": (
        "ck_payments_charged_when_succeeded",
        on_payment("lost", "processor_reference = 'ch_3'"),
    ),
    "a success that took nothing": (
        "ck_payments_captured_when_succeeded",
        on_payment("won", "captured_minor = 0, refunded_minor = 0, refund_reserved_minor = 0"),
    ),
    "a failure that took something": ("ck_payments_captured_when_succeeded", on_payment("lost", "captured_minor = 1")),
    "more taken than was asked": ("ck_payments_captured_at_most_amount", on_payment("won", "captured_minor = 5000")),
    "more given back than was taken": (
        "ck_payments_refunds_at_most_captured",
        on_payment("won", "refunded_minor = 4001"),
    ),
    "more reserved than was taken": (
        "ck_payments_refunds_at_most_captured",
        on_payment("won", "refund_reserved_minor = 4000"),
    ),
    "a refund of what was not taken": (
        "ck_payments_refunds_at_most_captured",
        on_payment("lost", "refunded_minor = 1"),
    ),
    "negative refunds": ("ck_payments_refunds_positive", on_payment("won", "refunded_minor = -1")),
    "a negative reserve": ("ck_payments_refunds_positive", on_payment("won", "refund_reserved_minor = -1")),
    "an end without a time": ("ck_payments_settled_when_final", on_payment("lost", "settled_at = NULL")),
    "a time without an end": ("ck_payments_settled_when_final", on_payment("live", "settled_at = 1")),
    "an open payment nobody will ask about": (
        "ck_payments_polled_when_open",
        on_payment("live", "next_poll_at = NULL"),
    ),
    "a settled payment somebody will ask about": (
        "ck_payments_polled_when_open",
        on_payment("won", "next_poll_at = 1"),
    ),
    "a settled payment without a reply": ("ck_payments_reply_when_final", on_payment("won", "reply = NULL")),
    "an open payment with a reply": ("ck_payments_reply_when_final", on_payment("live", "reply = 'reply'")),
    "a key without a fingerprint": ("ck_payments_fingerprint_with_key", on_payment("won", "idempotency_key = 'other'")),
    "a fingerprint without a key": ("ck_payments_fingerprint_with_key", on_payment("won", "fingerprint = 'f'")),
    "an empty key": ("ck_payments_idempotency_key", on_payment("live", "idempotency_key = ''")),
    "a key of 256 characters": ("ck_payments_idempotency_key", on_payment("live", f"idempotency_key = '{'k' * 256}'")),
    "a refund of no payment": ("fk_refunds_payment_id", on_refund("refunding", "payment_id = 'nowhere'")),
    "a refund of no order": ("fk_refunds_order_id", on_refund("refunding", "order_id = 'nowhere'")),
    "a refund of nothing": ("ck_refunds_amount_positive", on_refund("refunding", "amount_minor = 0")),
    "a refund of no known status": (
        "ck_refunds_status",
        on_refund("refunded", "status = 'open', processor_reference = NULL"),
    ),
    "a refund without the processor's word": (
        "ck_refunds_made_when_succeeded",
        on_refund("refunded", "processor_reference = NULL"),
    ),
    "a refund that is open and forgotten": (
        "ck_refunds_polled_when_open",
        on_refund("refunding", "next_poll_at = NULL"),
    ),
    "one refund of the processor's for two": (
        "ux_refunds_processor_processor_reference",
        on_refund("refunding", "status = 'succeeded', next_poll_at = NULL, processor_reference = 're_1'"),
    ),
    "two receipts of one id": (
        "pk_receipts",
        "INSERT INTO receipts (id, payment_id, order_id, created_at) VALUES ('won', 'lost', 'paid', 0)",
    ),
    "two receipts of one payment": (
        "ux_receipts_payment_id",
        "INSERT INTO receipts (id, payment_id, order_id, created_at) VALUES ('new', 'won', 'paid', 0)",
    ),
    "a receipt of no payment": ("fk_receipts_payment_id", "UPDATE receipts SET payment_id = 'nowhere'"),
    "a receipt of no order": ("fk_receipts_order_id", "UPDATE receipts SET order_id = 'nowhere'"),
    "two events of one number": (
        "pk_events",
        f"{NEW_EVENT} VALUES ('paid', 1, 'new', 'new', 'paid', 'placed', 'alice', 0)",
    ),
    "one thing that happens twice": (
        "ux_events_subject_id_type",
        f"{NEW_EVENT} VALUES ('paid', 2, 'new', 'order.approved', 'paid', 'placed', 'alice', 0)",
    ),
    "an event of no order": ("fk_events_order_id", "UPDATE events SET order_id = 'nowhere'"),
    "two entries of one number": ("ux_audit_log_chain_seq", new_entry(seq="1")),
    "two entries of one id": ("pk_audit_log", new_entry(id="'first'")),
    "an entry about something else": ("ck_audit_log_kind", new_entry(kind="'customer'")),
    "a change to no state": ("ck_audit_log_state_of_change", new_entry(to_state="NULL")),
    "a call that changes a state": ("ck_audit_log_state_of_change", new_entry(kind="'call'")),
    "an entry that half happened": ("ck_audit_log_outcome", new_entry(outcome="'begun'")),
    "two heads of one chain": ("pk_audit_heads", "INSERT INTO audit_heads VALUES ('caller:alice', 1, 'hash')"),
    "two sums of one thing": ("pk_statistics", NEW_SUM),
    "two seals of one number": ("pk_audit_seals", NEW_SEAL),
    "two endpoints of one id": ("pk_webhook_endpoints", NEW_ENDPOINT.format(id="endpoint", order="NULL", secret="''")),
    "an endpoint without a secret": (
        "ck_webhook_endpoints_secret_unless_callback",
        NEW_ENDPOINT.format(id="new", order="NULL", secret="NULL"),
    ),
    "a callback of no order": (
        "fk_webhook_endpoints_order_id",
        NEW_ENDPOINT.format(id="new", order="'nowhere'", secret="NULL"),
    ),
    "an endpoint in another state": ("ck_webhook_endpoints_state", on_endpoint("state = 'paused'")),
    "an endpoint disabled for no reason": (
        "ck_webhook_endpoints_reason_when_disabled",
        on_endpoint("state = 'disabled'"),
    ),
    "a previous secret for ever": (
        "ck_webhook_endpoints_previous_secret_ends",
        on_endpoint("previous_secrets = '[]'"),
    ),
    "two deliveries of one id": ("pk_webhook_deliveries", NEW_DELIVERY.format(id="delivery", event="another")),
    "one event to one endpoint twice": (
        "ux_webhook_deliveries_endpoint_id_event_id",
        NEW_DELIVERY.format(id="new", event="event"),
    ),
    "a delivery to nowhere": ("fk_webhook_deliveries_endpoint_id", on_delivery("endpoint_id = 'nowhere'")),
    "a delivery about no order": ("fk_webhook_deliveries_order_id", on_delivery("order_id = 'nowhere'")),
    "a delivery in another state": (
        "ck_webhook_deliveries_state",
        on_delivery("state = 'lost', next_attempt_at = NULL"),
    ),
    "a delivery that is over and waits": (
        "ck_webhook_deliveries_waits_when_pending",
        on_delivery("state = 'dead', next_attempt_at = NULL, lane = endpoint_id"),
    ),
    "a delivery that waits for nothing": (
        "ck_webhook_deliveries_attempted_when_pending",
        on_delivery("next_attempt_at = NULL"),
    ),
    "two attempts of one number": (
        "pk_webhook_attempts",
        "INSERT INTO webhook_attempts (delivery_id, number, claim, at, delivered) VALUES ('delivery', 1, 2, 0, false)",
    ),
    "an attempt of no delivery": (
        "fk_webhook_attempts_delivery_id",
        "UPDATE webhook_attempts SET delivery_id = 'nowhere'",
    ),
    "an answer of no class": ("ck_webhook_attempts_status_class", "UPDATE webhook_attempts SET status_class = 6"),
    "one finding twice": (
        "pk_findings",
        "INSERT INTO findings (kind, processor_reference, payment_id, opened_at)"
        " VALUES ('amount_differs', 'ch_1', '', 0)",
    ),
}

LEGAL = {
    "an entry of a refused call": new_entry(kind="'call'", to_state="NULL", outcome="'refused'"),
    "a callback, which has no secret": NEW_ENDPOINT.format(id="new", order="'paid'", secret="NULL"),
    "another event to one endpoint": NEW_DELIVERY.format(id="new", event="another"),
    "a failed payment beside a live one": new_payment("paying", A_FAILURE),
    "a live payment of a free order": new_payment("free", PROCESSING),
    "a second refund": "INSERT INTO refunds (id, payment_id, order_id, amount_minor, status, reason, processor,"
    " next_poll_at, created_at) VALUES ('new', 'won', 'paid', 1, 'processing', 'test', 'sandbox', 1, 0)",
    "one key of another caller": new_reply("bob", "CancelOrder", "free"),
    "one key of another method": new_reply("alice", "ForceCancelOrder", "free"),
    "cancelling a paid order": on_order("paid", "status = 'cancelled'"),
    "cancelling a free order": on_order("free", "status = 'cancelled'"),
    "a currency without minor digits": on_order("free", "currency = 'JPY', currency_digits = 0"),
    "all that was taken given back": on_payment("won", "refunded_minor = 4999, refund_reserved_minor = 0"),
    "a key of 255 characters": on_payment("live", f"idempotency_key = '{'k' * 255}'"),
    "one key of two callers": on_payment("lost", "idempotency_key = 'key', fingerprint = 'f', caller = 'bob'"),
}


class RolledBack(Exception):
    """Ends a transaction that is not to be kept."""


@pytest.fixture(scope="module", params=ENGINES)
async def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres
) -> AsyncIterator[Database]:
    """A database with a free order, one that is being paid and one that is paid. No test changes it."""
    url = await new_database(request.param, tmp_path_factory.mktemp("constraints"), postgres)
    database = Database(url, pool_size=1, pool_timeout_seconds=5)
    await upgrade(database)

    async def fill(connection: AsyncConnection) -> None:
        for table, rows in ROWS.items():
            for row in rows:
                await connection.execute(insert(table), row)

    await database.write(fill)
    yield database
    await database.close()


async def run_and_forget(database: Database, statement: str) -> int:
    """How many rows the statement wrote, in a transaction that is then rolled back."""
    rows = 0

    async def run(connection: AsyncConnection) -> None:
        nonlocal rows
        rows = (await connection.execute(text(statement))).rowcount
        raise RolledBack

    with pytest.raises(RolledBack):
        await database.write(run)
    return rows


@pytest.mark.parametrize(("constraint", "statement"), ILLEGAL.values(), ids=ILLEGAL)
async def test_an_illegal_write_is_refused(filled: Database, constraint: str, statement: str) -> None:
    with pytest.raises(IntegrityError) as refused:
        await run_and_forget(filled, statement)
    assert words_of(constraint, filled.url.get_backend_name()) in str(refused.value.orig)


@pytest.mark.parametrize("statement", LEGAL.values(), ids=LEGAL)
async def test_a_legal_write_is_not_refused(filled: Database, statement: str) -> None:
    assert 1 == await run_and_forget(filled, statement)


async def test_no_column_that_must_have_a_value_can_be_without(filled: Database) -> None:
    for table in metadata.sorted_tables:
        if table in (audit_log, audit_seals):
            continue  # It cannot be changed at all.
        for column in (column for column in table.columns if not column.nullable):
            with pytest.raises(IntegrityError) as refused:
                await run_and_forget(filled, f"UPDATE {table.name} SET {column.name} = NULL")
            assert column.name in str(refused.value.orig)


ONLY_ADDED_TO = {
    "sqlite": [
        "UPDATE audit_log SET actor = 'mallory'",
        "DELETE FROM audit_log",
        new_entry(seq="1", actor="'mallory'").replace("INSERT", "INSERT OR REPLACE", 1),
        new_entry(id="'first'", actor="'mallory'").replace("INSERT", "INSERT OR REPLACE", 1),
        "UPDATE audit_seals SET entry_count = 0",
        "DELETE FROM audit_seals",
        NEW_SEAL.replace("INSERT", "INSERT OR REPLACE", 1),
    ],
    "postgresql": [
        "UPDATE audit_log SET actor = 'mallory'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "UPDATE audit_seals SET entry_count = 0",
        "DELETE FROM audit_seals",
        "TRUNCATE audit_seals",
    ],
}


async def test_the_audit_log_can_neither_be_changed_nor_shortened(filled: Database) -> None:
    for statement in ONLY_ADDED_TO[filled.url.get_backend_name()]:
        with pytest.raises(
            DBAPIError, match=r"the audit log is only added to|UNIQUE constraint failed: audit_(log|seals)\."
        ):
            await run_and_forget(filled, statement)


@pytest.mark.parametrize("missing", ["at", "actor", "kind", "object_id", "to_state", "seq", "chain", "outcome", "hash"])
async def test_an_audit_entry_is_whole(filled: Database, missing: str) -> None:
    with pytest.raises(IntegrityError, match=missing):
        await run_and_forget(filled, new_entry(**{missing: "NULL"}))


def test_every_constraint_refuses_something() -> None:
    assert names_of_constraints() == {constraint for constraint, _ in ILLEGAL.values()}


def names_of_constraints() -> set[str]:
    kinds = CheckConstraint | ForeignKeyConstraint | PrimaryKeyConstraint | UniqueConstraint
    tables = metadata.sorted_tables
    constraints = {str(each.name) for table in tables for each in table.constraints if isinstance(each, kinds)}
    return constraints | {str(index.name) for table in tables for index in table.indexes if index.unique}


def words_of(constraint: str, engine: str) -> str:
    """How the engine names it. SQLite names only checks; of a unique index it names the columns."""
    if engine == "postgresql" or constraint.startswith("ck_"):
        return constraint
    if constraint.startswith("fk_"):
        return "FOREIGN KEY constraint failed"
    for table in metadata.sorted_tables:
        for each in (*table.constraints, *table.indexes):
            if each.name == constraint:
                columns = ", ".join(f"{table.name}.{column.name}" for column in each.columns)
                return f"UNIQUE constraint failed: {columns}"
    raise LookupError(constraint)
