"""The tables. No column can hold a PAN or a CVC; the constraints make an illegal state impossible to write.

Money is an integer of minor units beside the exponent it was written with, so that a change of ISO 4217 never
re-reads old amounts. Times are epoch milliseconds, UTC. Documents are JSON text, the same on every engine.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

# Conditions of partial indexes. A statement that is to use such an index says the same words: a plan that is made
# before the values are known cannot prove that they fit.
PAYMENT_IS_OPEN = "status IN ('processing', 'unknown')"
REFUND_IS_OPEN = "status = 'processing'"
# Fanned out not yet, and not set aside because it could not be rendered so often.
EVENT_FAULTS_MAX = 5
EVENT_IS_PENDING = f"fanned_out_at IS NULL AND faults < {EVENT_FAULTS_MAX}"
# A delivery that is pending waits in a lane until it is claimed; claimed, or to be retried, it is in none.
DELIVERY_WAITS = "lane IS NOT NULL"
DELIVERY_IS_AWAY = "state = 'pending' AND lane IS NULL"
NO_CALLBACK = "order_id IS NULL"
ROTATION_OVERLAPS = "previous_secret_until IS NOT NULL"
# Declined or still open. What has failed otherwise, because the processor was away, says nothing of who tried what.
_WAS_TRIED = "failure IS NULL AND status IN ('processing', 'unknown', 'failed')"
OWNER_HAS_TRIED = f"owner_attempt IS NOT NULL AND {_WAS_TRIED}"
SOURCE_WAS_TRIED = f"source_attempt IS NOT NULL AND {_WAS_TRIED}"


def _where(condition: str) -> dict[str, Any]:
    """A partial index, on either engine."""
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


metadata = MetaData(
    naming_convention={
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "ux_%(table_name)s_%(column_0_N_name)s",
    }
)

orders = Table(
    "orders",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner_sub", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("currency_digits", SmallInteger, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("pet_id", Text),
    Column("description", Text),
    Column("metadata", Text, nullable=False),
    Column("latest_payment_id", Text),
    Column("active_payment_id", Text),
    Column("paid_payment_id", Text),
    # Number of the order's newest event.
    Column("event_seq", BigInteger, nullable=False, server_default="0"),
    # Declines without a pause between them, and when the last of them was, by the database's clock.
    Column("declines", BigInteger, nullable=False, server_default="0"),
    Column("declined_at", BigInteger),
    # The head of its chain in the audit log: number and hash of the newest entry, and the hash before the last write.
    Column("audit_seq", BigInteger, nullable=False),
    Column("audit_hash", LargeBinary, nullable=False),
    Column("audit_previous", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    CheckConstraint("status IN ('placed', 'approved', 'shipped', 'delivered', 'cancelled')", name="status"),
    CheckConstraint("length(currency) = 3", name="currency"),
    CheckConstraint("currency_digits BETWEEN 0 AND 4", name="currency_digits"),
    CheckConstraint("total_minor > 0", name="total_positive"),
    CheckConstraint(
        "status NOT IN ('approved', 'shipped', 'delivered') OR paid_payment_id IS NOT NULL", name="paid_when_approved"
    ),
    # A paid order that is cancelled keeps its payment; a placed one has none.
    CheckConstraint("status <> 'placed' OR paid_payment_id IS NULL", name="unpaid_when_placed"),
    # An order cannot be cancelled, or approved twice, under a payment that is being made.
    CheckConstraint("active_payment_id IS NULL OR status = 'placed'", name="active_when_placed"),
    Index("ix_orders_owner", "owner_sub", "id"),
    # What claims and settles changes no column of an index: no index is written as long as the new version of the row
    # finds room on its page. It grows by three ids.
    postgresql_with={"fillfactor": 65},
)

payments = Table(
    "payments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False),
    # The order's own, and which attempt of this owner it was, where attempts are counted.
    Column("owner_sub", Text, nullable=False),
    Column("owner_attempt", BigInteger),
    Column("status", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("currency_digits", SmallInteger, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("processor", Text, nullable=False),
    Column("processor_reference", Text),
    Column("decline_code", Text),
    Column("failure", Text),
    Column("captured_minor", BigInteger, nullable=False, server_default="0"),
    Column("refund_reserved_minor", BigInteger, nullable=False, server_default="0"),
    Column("refunded_minor", BigInteger, nullable=False, server_default="0"),
    # Who asked, with which key, a keyed digest of the request without its CVC, and the final answer as it was sent.
    Column("caller", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("fingerprint", Text),
    Column("reply_code", SmallInteger),
    Column("reply", LargeBinary),
    # While the payment is open: when somebody is to ask the processor about it, by the database's clock.
    Column("next_poll_at", BigInteger),
    Column("poll_attempts", BigInteger, nullable=False, server_default="0"),
    Column("source_kind", Text, nullable=False),
    Column("source_last4", Text, nullable=False),
    Column("source_masked", Text, nullable=False),
    # A keyed hash of the number, and which attempt with it this was, where attempts are counted.
    Column("source_fingerprint", LargeBinary),
    Column("source_attempt", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    # By the database's clock.
    Column("claimed_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    CheckConstraint("status IN ('processing', 'unknown', 'succeeded', 'failed', 'cancelled')", name="status"),
    CheckConstraint("length(currency) = 3", name="currency"),
    CheckConstraint("currency_digits BETWEEN 0 AND 4", name="currency_digits"),
    CheckConstraint("amount_minor > 0", name="amount_positive"),
    CheckConstraint("source_kind IN ('card', 'bank_account')", name="source_kind"),
    # A PAN cannot be put here.
    CheckConstraint("length(source_last4) = 4", name="source_last4"),
    CheckConstraint("(status = 'succeeded') = (processor_reference IS NOT NULL)", name="charged_when_succeeded"),
    CheckConstraint("(status IN ('processing', 'unknown')) = (settled_at IS NULL)", name="settled_when_final"),
    CheckConstraint("(status = 'succeeded') = (captured_minor > 0)", name="captured_when_succeeded"),
    CheckConstraint("captured_minor <= amount_minor", name="captured_at_most_amount"),
    CheckConstraint("refund_reserved_minor >= 0 AND refunded_minor >= 0", name="refunds_positive"),
    # Nobody gets back more than was taken, not even for a moment.
    CheckConstraint("refunded_minor + refund_reserved_minor <= captured_minor", name="refunds_at_most_captured"),
    CheckConstraint("(status IN ('processing', 'unknown')) = (next_poll_at IS NOT NULL)", name="polled_when_open"),
    CheckConstraint("(status IN ('processing', 'unknown')) = (reply IS NULL)", name="reply_when_final"),
    CheckConstraint("(idempotency_key IS NULL) = (fingerprint IS NULL)", name="fingerprint_with_key"),
    CheckConstraint("source_attempt IS NULL OR source_fingerprint IS NOT NULL", name="attempt_of_source"),
    CheckConstraint("source_attempt > 0", name="source_attempt_positive"),
    CheckConstraint("owner_attempt > 0", name="owner_attempt_positive"),
    CheckConstraint("length(source_fingerprint) = 16", name="source_fingerprint"),
    CheckConstraint("length(idempotency_key) BETWEEN 1 AND 255", name="idempotency_key"),
    # Only of charges that were made: a claim has no reference yet, and need not write it here.
    Index(
        "ux_payments_processor_processor_reference",
        "processor",
        "processor_reference",
        unique=True,
        **_where("processor_reference IS NOT NULL"),
    ),
    Index("ux_payments_key", "caller", "idempotency_key", unique=True, **_where("idempotency_key IS NOT NULL")),
    Index("ix_payments_order", "order_id", "id"),
    # THE constraint: a second live or successful payment of one order cannot exist.
    Index(
        "ux_payments_one_live",
        "order_id",
        unique=True,
        **_where("status IN ('processing', 'unknown', 'succeeded')"),
    ),
    # Two attempts with one source, or of one owner, cannot have seen the same number of earlier ones.
    Index(
        "ux_payments_source_attempt", "source_fingerprint", "source_attempt", unique=True, **_where(SOURCE_WAS_TRIED)
    ),
    Index("ux_payments_owner_attempt", "owner_sub", "owner_attempt", unique=True, **_where(OWNER_HAS_TRIED)),
    # What is still open, for whoever settles it.
    Index("ix_payments_due", "processor", "next_poll_at", **_where(PAYMENT_IS_OPEN)),
)

# What was answered to calls that create or change an order; one can be cancelled again, under another key.
keyed_replies = Table(
    "keyed_replies",
    metadata,
    Column("caller", Text, primary_key=True),
    Column("method", Text, primary_key=True),
    Column("idempotency_key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False),
    Column("reply", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("length(idempotency_key) BETWEEN 1 AND 255", name="idempotency_key"),
)

refunds = Table(
    "refunds",
    metadata,
    Column("id", Text, primary_key=True),
    Column("payment_id", Text, ForeignKey("payments.id"), nullable=False),
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("processor", Text, nullable=False),
    Column("processor_reference", Text),
    Column("next_poll_at", BigInteger),
    Column("poll_attempts", BigInteger, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    CheckConstraint("status IN ('processing', 'succeeded', 'failed')", name="status"),
    CheckConstraint("amount_minor > 0", name="amount_positive"),
    CheckConstraint("(status = 'succeeded') = (processor_reference IS NOT NULL)", name="made_when_succeeded"),
    CheckConstraint("(status = 'processing') = (next_poll_at IS NOT NULL)", name="polled_when_open"),
    UniqueConstraint("processor", "processor_reference"),
    Index("ix_refunds_due", "processor", "next_poll_at", **_where(REFUND_IS_OPEN)),
)

receipts = Table(
    "receipts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("payment_id", Text, ForeignKey("payments.id"), nullable=False, unique=True),
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

# What has happened, in the order of each order's own numbers, written with the change itself.
events = Table(
    "events",
    metadata,
    Column("order_id", Text, ForeignKey("orders.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    # A UUIDv7 that receivers know it by, whichever endpoint it goes to and however often.
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject_id", Text, nullable=False),
    Column("from_state", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # When its deliveries were written, which may be none. Until then it waits for that: by this it is found, and never
    # by a number, because a lower one can be committed later.
    Column("fanned_out_at", BigInteger),
    # How often it could not be rendered.
    Column("faults", SmallInteger, nullable=False, server_default="0"),
    # Each thing happens once: a payment cannot succeed twice, nor an order be approved twice.
    UniqueConstraint("subject_id", "type"),
    Index("ix_events_pending", "created_at", **_where(EVENT_IS_PENDING)),
)

# Where events are to be sent: to the owner of orders, to a service for everybody's, or once, about one order.
webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    # Who manages it.
    Column("created_by", Text, nullable=False),
    # Whose orders it hears of; NULL for everybody's.
    Column("owner_sub", Text),
    # A callback hears of this order alone, once.
    Column("order_id", Text, ForeignKey("orders.id")),
    # Of a callback: the order's newest event when it was asked for. It hears of later ones.
    Column("after_seq", BigInteger),
    Column("url", Text, nullable=False),
    # Whether it was given by who may act for any owner: networks inside may be open to these alone.
    Column("url_by_service", Boolean, nullable=False, server_default=false()),
    Column("description", Text),
    # A JSON list of public event types; an empty one means all.
    Column("event_types", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("disabled_because", Text),
    # Encrypted. Those of before sign too for a while, so that a receiver can change over: overlaps.py has the form, and
    # until when the last of them does. A callback has none.
    Column("secret", LargeBinary),
    Column("previous_secrets", Text),
    Column("previous_secret_until", BigInteger),
    # Since when every attempt has failed, by the database's clock.
    Column("failing_since", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    CheckConstraint("state IN ('enabled', 'disabled')", name="state"),
    CheckConstraint("(state = 'disabled') = (disabled_because IS NOT NULL)", name="reason_when_disabled"),
    CheckConstraint("(secret IS NULL) = (order_id IS NOT NULL)", name="secret_unless_callback"),
    CheckConstraint("(previous_secrets IS NULL) = (previous_secret_until IS NULL)", name="previous_secret_ends"),
    Index("ix_webhook_endpoints_previous_secret", "previous_secret_until", **_where(ROTATION_OVERLAPS)),
    # Of callbacks there may be one for every order.
    Index("ix_webhook_endpoints_created_by", "created_by", "id", **_where(NO_CALLBACK)),
    Index("ix_webhook_endpoints_owner", "owner_sub", **_where(f"state = 'enabled' AND {NO_CALLBACK}")),
    Index("ix_webhook_endpoints_order", "order_id", **_where("order_id IS NOT NULL")),
)

# One event on its way to one endpoint: what is sent is written once, and every attempt sends these bytes.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("endpoint_id", Text, ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    # NULL for a test event, which is of no order.
    Column("order_id", Text, ForeignKey("orders.id")),
    Column("body", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    # In which it waits to be claimed, if it does: lanes.py says who shares one. Compared as bytes, as Python does.
    Column("lane", Text().with_variant(Text(collation="C"), "postgresql")),
    # Whoever claimed it last may say what becomes of it.
    Column("claims", BigInteger, nullable=False, server_default="0"),
    # Those that have ended, each with its row.
    Column("attempts", BigInteger, nullable=False, server_default="0"),
    # While it is pending: since when it waits, or until when it does not, by the database's clock.
    Column("next_attempt_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state"),
    CheckConstraint("(state = 'pending') = (next_attempt_at IS NOT NULL)", name="attempted_when_pending"),
    CheckConstraint("lane IS NULL OR state = 'pending'", name="waits_when_pending"),
    UniqueConstraint("endpoint_id", "event_id"),
    Index("ix_webhook_deliveries_endpoint", "endpoint_id", "id"),
    Index("ix_webhook_deliveries_lane", "lane", "next_attempt_at", **_where(DELIVERY_WAITS)),
    Index("ix_webhook_deliveries_due", "next_attempt_at", **_where(DELIVERY_IS_AWAY)),
)

# What became of each attempt, as far as its owner may know: nothing that tells an open port from a closed one.
webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("delivery_id", Text, ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True),
    # From 1 on, without a gap.
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    # That it was made under: each makes one at most.
    Column("claim", BigInteger, nullable=False),
    # By the database's clock.
    Column("at", BigInteger, nullable=False),
    # 2 for 2xx and so on; NULL when no answer was had, or one that HTTP does not have.
    Column("status_class", SmallInteger),
    Column("delivered", Boolean, nullable=False),
    CheckConstraint("status_class BETWEEN 1 AND 5", name="status_class"),
)

# Who did what, from which state to which, written with the change itself. Only ever added to: triggers see to it.
# Without foreign keys, because it outlives what it tells of.
audit_log = Table(
    "audit_log",
    metadata,
    # A UUIDv7 of `at`, so that what happened between two moments is found by it.
    Column("id", Text, primary_key=True),
    # An order's id, or `caller:` and a subject for what concerns no order.
    Column("chain", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    # By the database's clock.
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text),
    # Of a call, `object_id` is the method, and it has no states.
    Column("kind", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text),
    Column("outcome", Text, nullable=False),
    # The reason that was given, what was asked for, or why it was refused.
    Column("detail", Text),
    # Both of 32 bytes; audit.py says of what. The first of a chain follows on zeros.
    Column("prev_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("kind IN ('order', 'payment', 'refund', 'call')", name="kind"),
    CheckConstraint("(kind = 'call') = (to_state IS NULL)", name="state_of_change"),
    CheckConstraint("outcome IN ('done', 'refused')", name="outcome"),
    UniqueConstraint("chain", "seq"),
)

# Heads of the chains that are no order's.
audit_heads = Table(
    "audit_heads",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

# Signed digests of what the audit log holds between two moments; each follows on the one before. Only ever added to.
audit_seals = Table(
    "audit_seals",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("from_at", BigInteger, nullable=False),
    Column("until_at", BigInteger, nullable=False),
    Column("entry_count", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("prev_hash", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)

# How often everything had happened until a moment, for the dashboard: see statistics.py.
statistics = Table(
    "statistics",
    metadata,
    Column("until_at", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
    # Empty for what was new, and for what has no money or no decline code.
    Column("from_state", Text, primary_key=True),
    Column("to_state", Text, primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("currency_digits", SmallInteger, primary_key=True, autoincrement=False),
    Column("decline_code", Text, primary_key=True),
    Column("times", BigInteger, nullable=False),
    # Of so many amounts the sum has no end: a decimal number, as text.
    Column("amount_minor", Text, nullable=False),
)

# What the comparison with the processor's books has found, for a person.
findings = Table(
    "findings",
    metadata,
    # In this order, because they are looked for by the reference alone.
    Column("processor_reference", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("payment_id", Text, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
)
