"""orders and payments"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_orders()
    _create_payments()


def _create_orders() -> None:
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
    )
    op.create_index("ix_orders_owner", "orders", ["owner_sub", "id"], unique=False)


def _create_payments() -> None:  # long: one statement for one table
    op.create_table(
        "payments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("currency_digits", sa.SmallInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("processor", sa.Text(), nullable=False),
        sa.Column("processor_reference", sa.Text(), nullable=True),
        sa.Column("decline_code", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("source_kind", sa.Text(), nullable=False),
        sa.Column("source_last4", sa.Text(), nullable=False),
        sa.Column("source_masked", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(status IN ('processing', 'unknown')) = (settled_at IS NULL)", name=op.f("ck_payments_settled_when_final")
        ),
        sa.CheckConstraint(
            "(status IN ('succeeded', 'late_success')) = (processor_reference IS NOT NULL)",
            name=op.f("ck_payments_charged_when_succeeded"),
        ),
        sa.CheckConstraint("source_kind IN ('card', 'bank_account')", name=op.f("ck_payments_source_kind")),
        sa.CheckConstraint(
            "status IN ('processing', 'unknown', 'succeeded', 'failed', 'cancelled', 'late_success')",
            name=op.f("ck_payments_status"),
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_payments_amount_positive")),
        sa.CheckConstraint("currency_digits BETWEEN 0 AND 4", name=op.f("ck_payments_currency_digits")),
        sa.CheckConstraint("length(currency) = 3", name=op.f("ck_payments_currency")),
        sa.CheckConstraint("length(source_last4) = 4", name=op.f("ck_payments_source_last4")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_payments_order_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments")),
        sa.UniqueConstraint("processor", "processor_reference", name=op.f("ux_payments_processor_processor_reference")),
    )
    op.create_index(
        "ix_payments_open",
        "payments",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('processing', 'unknown')"),
        sqlite_where=sa.text("status IN ('processing', 'unknown')"),
    )
    op.create_index("ix_payments_order", "payments", ["order_id", "id"], unique=False)
    op.create_index(
        "ux_payments_one_live",
        "payments",
        ["order_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('processing', 'unknown', 'succeeded')"),
        sqlite_where=sa.text("status IN ('processing', 'unknown', 'succeeded')"),
    )


def downgrade() -> None:
    op.drop_index(
        "ux_payments_one_live",
        table_name="payments",
        postgresql_where=sa.text("status IN ('processing', 'unknown', 'succeeded')"),
        sqlite_where=sa.text("status IN ('processing', 'unknown', 'succeeded')"),
    )
    op.drop_index("ix_payments_order", table_name="payments")
    op.drop_index(
        "ix_payments_open",
        table_name="payments",
        postgresql_where=sa.text("status IN ('processing', 'unknown')"),
        sqlite_where=sa.text("status IN ('processing', 'unknown')"),
    )
    op.drop_table("payments")
    op.drop_index("ix_orders_owner", table_name="orders")
    op.drop_table("orders")
