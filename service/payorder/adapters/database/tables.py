"""The tables. No column can hold a PAN or a CVC; the constraints make an illegal state impossible to write.

Money is an integer of minor units beside the exponent it was written with, so that a change of ISO 4217 never
re-reads old amounts. Times are epoch milliseconds, UTC. Documents are JSON text, the same on every engine.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

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
)

payments = Table(
    "payments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("order_id", Text, ForeignKey("orders.id"), nullable=False),
    Column("status", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("currency_digits", SmallInteger, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("processor", Text, nullable=False),
    Column("processor_reference", Text),
    Column("decline_code", Text),
    Column("failure", Text),
    Column("source_kind", Text, nullable=False),
    Column("source_last4", Text, nullable=False),
    Column("source_masked", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    CheckConstraint(
        "status IN ('processing', 'unknown', 'succeeded', 'failed', 'cancelled', 'late_success')", name="status"
    ),
    CheckConstraint("length(currency) = 3", name="currency"),
    CheckConstraint("currency_digits BETWEEN 0 AND 4", name="currency_digits"),
    CheckConstraint("amount_minor > 0", name="amount_positive"),
    CheckConstraint("source_kind IN ('card', 'bank_account')", name="source_kind"),
    # A PAN cannot be put here.
    CheckConstraint("length(source_last4) = 4", name="source_last4"),
    CheckConstraint(
        "(status IN ('succeeded', 'late_success')) = (processor_reference IS NOT NULL)", name="charged_when_succeeded"
    ),
    CheckConstraint("(status IN ('processing', 'unknown')) = (settled_at IS NULL)", name="settled_when_final"),
    UniqueConstraint("processor", "processor_reference"),
    Index("ix_payments_order", "order_id", "id"),
    # THE constraint: a second live or successful payment of one order cannot exist.
    Index(
        "ux_payments_one_live",
        "order_id",
        unique=True,
        postgresql_where=text("status IN ('processing', 'unknown', 'succeeded')"),
        sqlite_where=text("status IN ('processing', 'unknown', 'succeeded')"),
    ),
    # What is still open, for whoever settles it.
    Index(
        "ix_payments_open",
        "created_at",
        postgresql_where=text("status IN ('processing', 'unknown')"),
        sqlite_where=text("status IN ('processing', 'unknown')"),
    ),
)
