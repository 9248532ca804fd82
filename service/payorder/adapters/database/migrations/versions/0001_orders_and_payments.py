"""orders and payments"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_audit_log()
    _create_audit_heads()
    _create_audit_seals()
    _only_add_to("audit_log", ["id"], ["chain", "seq"])
    _only_add_to("audit_seals", ["number"])
    _create_findings()
    _create_orders()
    _create_keyed_replies()
    _create_events()
    _create_payments()
    _create_receipts()
    _create_refunds()
    _create_statistics()


def _create_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("prev_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("kind IN ('order', 'payment', 'refund', 'call')", name=op.f("ck_audit_log_kind")),
        sa.CheckConstraint("(kind = 'call') = (to_state IS NULL)", name=op.f("ck_audit_log_state_of_change")),
        sa.CheckConstraint("outcome IN ('done', 'refused')", name=op.f("ck_audit_log_outcome")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
        sa.UniqueConstraint("chain", "seq", name=op.f("ux_audit_log_chain_seq")),
    )


def _create_audit_heads() -> None:
    op.create_table(
        "audit_heads",
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain", name=op.f("pk_audit_heads")),
    )


def _create_audit_seals() -> None:
    op.create_table(
        "audit_seals",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("from_at", sa.BigInteger(), nullable=False),
        sa.Column("until_at", sa.BigInteger(), nullable=False),
        sa.Column("entry_count", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("prev_hash", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_seals")),
    )


def _only_add_to(table: str, *keys: list[str]) -> None:
    """Nothing in it is ever changed or taken out, whoever asks; `keys` are all that is unique in it."""
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END"
            )
        # INSERT OR REPLACE takes out what is there without a word to the trigger of DELETE.
        for columns in keys:
            same = " AND ".join(f"kept.{column} = NEW.{column}" for column in columns)
            names = ", ".join(f"{table}.{column}" for column in columns)
            op.execute(
                f"CREATE TRIGGER {table}_no_replace_by_{columns[-1]} BEFORE INSERT ON {table} "
                f"WHEN EXISTS (SELECT 1 FROM {table} AS kept WHERE {same}) "
                f"BEGIN SELECT RAISE(ABORT, 'UNIQUE constraint failed: {names}'); END"
            )
        return
    op.execute(
        "CREATE OR REPLACE FUNCTION refuse_audit_log_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log is only added to'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_log_change()"
    )


def _create_findings() -> None:
    op.create_table(
        "findings",
        sa.Column("processor_reference", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("processor_reference", "kind", name=op.f("pk_findings")),
    )


def _create_orders() -> None:  # long: one table
    op.create_table(
        "orders",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_sub", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("currency_digits", sa.SmallInteger(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("pet_id", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("latest_payment_id", sa.Text(), nullable=True),
        sa.Column("active_payment_id", sa.Text(), nullable=True),
        sa.Column("paid_payment_id", sa.Text(), nullable=True),
        sa.Column("event_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("declines", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("declined_at", sa.BigInteger(), nullable=True),
        sa.Column("audit_seq", sa.BigInteger(), nullable=False),
        sa.Column("audit_hash", sa.LargeBinary(), nullable=False),
        sa.Column("audit_previous", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("active_payment_id IS NULL OR status = 'placed'", name=op.f("ck_orders_active_when_placed")),
        sa.CheckConstraint("status <> 'placed' OR paid_payment_id IS NULL", name=op.f("ck_orders_unpaid_when_placed")),
        sa.CheckConstraint(
            "status IN ('placed', 'approved', 'shipped', 'delivered', 'cancelled')", name=op.f("ck_orders_status")
        ),
        sa.CheckConstraint(
            "status NOT IN ('approved', 'shipped', 'delivered') OR paid_payment_id IS NOT NULL",
            name=op.f("ck_orders_paid_when_approved"),
        ),
        sa.CheckConstraint("currency_digits BETWEEN 0 AND 4", name=op.f("ck_orders_currency_digits")),
        sa.CheckConstraint("length(currency) = 3", name=op.f("ck_orders_currency")),
        sa.CheckConstraint("total_minor > 0", name=op.f("ck_orders_total_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        postgresql_with={"fillfactor": 65},
    )
    op.create_index("ix_orders_owner", "orders", ["owner_sub", "id"], unique=False)


def _create_keyed_replies() -> None:
    op.create_table(
        "keyed_replies",
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("reply", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("length(idempotency_key) BETWEEN 1 AND 255", name=op.f("ck_keyed_replies_idempotency_key")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_keyed_replies_order_id")),
        sa.PrimaryKeyConstraint("caller", "method", "idempotency_key", name=op.f("pk_keyed_replies")),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("fanned_out_at", sa.BigInteger(), nullable=True),
        sa.Column("faults", sa.SmallInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_events_order_id")),
        sa.PrimaryKeyConstraint("order_id", "seq", name=op.f("pk_events")),
        sa.UniqueConstraint("subject_id", "type", name=op.f("ux_events_subject_id_type")),
    )
    op.create_index(
        "ix_events_pending",
        "events",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("fanned_out_at IS NULL AND faults < 5"),
        sqlite_where=sa.text("fanned_out_at IS NULL AND faults < 5"),
    )


def _create_payments() -> None:  # long: one table
    op.create_table(
        "payments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("owner_sub", sa.Text(), nullable=False),
        sa.Column("owner_attempt", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("currency_digits", sa.SmallInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("processor", sa.Text(), nullable=False),
        sa.Column("processor_reference", sa.Text(), nullable=True),
        sa.Column("decline_code", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("captured_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("refund_reserved_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("refunded_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("reply_code", sa.SmallInteger(), nullable=True),
        sa.Column("reply", sa.LargeBinary(), nullable=True),
        sa.Column("next_poll_at", sa.BigInteger(), nullable=True),
        sa.Column("poll_attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("source_kind", sa.Text(), nullable=False),
        sa.Column("source_last4", sa.Text(), nullable=False),
        sa.Column("source_masked", sa.Text(), nullable=False),
        sa.Column("source_fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("source_attempt", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("claimed_at", sa.BigInteger(), nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(status = 'succeeded') = (captured_minor > 0)", name=op.f("ck_payments_captured_when_succeeded")
        ),
        sa.CheckConstraint(
            "(status = 'succeeded') = (processor_reference IS NOT NULL)",
            name=op.f("ck_payments_charged_when_succeeded"),
        ),
        sa.CheckConstraint(
            "(status IN ('processing', 'unknown')) = (next_poll_at IS NOT NULL)",
            name=op.f("ck_payments_polled_when_open"),
        ),
        sa.CheckConstraint(
            "(status IN ('processing', 'unknown')) = (reply IS NULL)", name=op.f("ck_payments_reply_when_final")
        ),
        sa.CheckConstraint(
            "(status IN ('processing', 'unknown')) = (settled_at IS NULL)", name=op.f("ck_payments_settled_when_final")
        ),
        sa.CheckConstraint("source_kind IN ('card', 'bank_account')", name=op.f("ck_payments_source_kind")),
        sa.CheckConstraint(
            "status IN ('processing', 'unknown', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_payments_status")
        ),
        sa.CheckConstraint(
            "(idempotency_key IS NULL) = (fingerprint IS NULL)", name=op.f("ck_payments_fingerprint_with_key")
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_payments_amount_positive")),
        sa.CheckConstraint("captured_minor <= amount_minor", name=op.f("ck_payments_captured_at_most_amount")),
        sa.CheckConstraint("currency_digits BETWEEN 0 AND 4", name=op.f("ck_payments_currency_digits")),
        sa.CheckConstraint("length(currency) = 3", name=op.f("ck_payments_currency")),
        sa.CheckConstraint("length(idempotency_key) BETWEEN 1 AND 255", name=op.f("ck_payments_idempotency_key")),
        sa.CheckConstraint(
            "source_attempt IS NULL OR source_fingerprint IS NOT NULL", name=op.f("ck_payments_attempt_of_source")
        ),
        sa.CheckConstraint("source_attempt > 0", name=op.f("ck_payments_source_attempt_positive")),
        sa.CheckConstraint("owner_attempt > 0", name=op.f("ck_payments_owner_attempt_positive")),
        sa.CheckConstraint("length(source_fingerprint) = 16", name=op.f("ck_payments_source_fingerprint")),
        sa.CheckConstraint("length(source_last4) = 4", name=op.f("ck_payments_source_last4")),
        sa.CheckConstraint(
            "refund_reserved_minor >= 0 AND refunded_minor >= 0", name=op.f("ck_payments_refunds_positive")
        ),
        sa.CheckConstraint(
            "refunded_minor + refund_reserved_minor <= captured_minor",
            name=op.f("ck_payments_refunds_at_most_captured"),
        ),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_payments_order_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments")),
    )
    for whose, number in (("owner_sub", "owner_attempt"), ("source_fingerprint", "source_attempt")):
        was_tried = f"{number} IS NOT NULL AND failure IS NULL AND status IN ('processing', 'unknown', 'failed')"
        op.create_index(
            f"ux_payments_{number}",
            "payments",
            [whose, number],
            unique=True,
            postgresql_where=sa.text(was_tried),
            sqlite_where=sa.text(was_tried),
        )
    op.create_index(
        "ix_payments_due",
        "payments",
        ["processor", "next_poll_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('processing', 'unknown')"),
        sqlite_where=sa.text("status IN ('processing', 'unknown')"),
    )
    op.create_index("ix_payments_order", "payments", ["order_id", "id"], unique=False)
    op.create_index(
        "ux_payments_key",
        "payments",
        ["caller", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "ux_payments_one_live",
        "payments",
        ["order_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('processing', 'unknown', 'succeeded')"),
        sqlite_where=sa.text("status IN ('processing', 'unknown', 'succeeded')"),
    )
    op.create_index(
        "ux_payments_processor_processor_reference",
        "payments",
        ["processor", "processor_reference"],
        unique=True,
        postgresql_where=sa.text("processor_reference IS NOT NULL"),
        sqlite_where=sa.text("processor_reference IS NOT NULL"),
    )


def _create_receipts() -> None:
    op.create_table(
        "receipts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_receipts_order_id")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_receipts_payment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipts")),
        sa.UniqueConstraint("payment_id", name=op.f("ux_receipts_payment_id")),
    )


def _create_refunds() -> None:
    op.create_table(
        "refunds",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("processor", sa.Text(), nullable=False),
        sa.Column("processor_reference", sa.Text(), nullable=True),
        sa.Column("next_poll_at", sa.BigInteger(), nullable=True),
        sa.Column("poll_attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(status = 'processing') = (next_poll_at IS NOT NULL)", name=op.f("ck_refunds_polled_when_open")
        ),
        sa.CheckConstraint(
            "(status = 'succeeded') = (processor_reference IS NOT NULL)", name=op.f("ck_refunds_made_when_succeeded")
        ),
        sa.CheckConstraint("status IN ('processing', 'succeeded', 'failed')", name=op.f("ck_refunds_status")),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_refunds_amount_positive")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_refunds_order_id")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_refunds_payment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refunds")),
        sa.UniqueConstraint("processor", "processor_reference", name=op.f("ux_refunds_processor_processor_reference")),
    )
    op.create_index(
        "ix_refunds_due",
        "refunds",
        ["processor", "next_poll_at"],
        unique=False,
        postgresql_where=sa.text("status = 'processing'"),
        sqlite_where=sa.text("status = 'processing'"),
    )


def _create_statistics() -> None:
    op.create_table(
        "statistics",
        sa.Column("until_at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=False),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("currency_digits", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("decline_code", sa.Text(), nullable=False),
        sa.Column("times", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "until_at",
            "kind",
            "from_state",
            "to_state",
            "currency",
            "currency_digits",
            "decline_code",
            name=op.f("pk_statistics"),
        ),
    )


def downgrade() -> None:
    op.drop_table("statistics")
    op.drop_table("refunds")
    op.drop_table("receipts")
    op.drop_table("payments")
    op.drop_table("events")
    op.drop_table("keyed_replies")
    op.drop_table("orders")
    op.drop_table("findings")
    op.drop_table("audit_seals")
    op.drop_table("audit_heads")
    op.drop_table("audit_log")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_audit_log_change()")
