"""The project's own tables, as the ORM sees them."""

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, SmallInteger, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    type_annotation_map = {str: Text, int: BigInteger, bytes: LargeBinary}  # noqa: RUF012 - SQLAlchemy's way


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner_sub: Mapped[str]
    status: Mapped[str]
    currency: Mapped[str]
    currency_digits: Mapped[int] = mapped_column(SmallInteger)
    total_minor: Mapped[int]
    latest_payment_id: Mapped[str | None]
    active_payment_id: Mapped[str | None]
    paid_payment_id: Mapped[str | None]
    event_seq: Mapped[int]
    audit_seq: Mapped[int]
    audit_hash: Mapped[bytes]
    audit_previous: Mapped[bytes]
    updated_at: Mapped[int]


class Payment(Base):
    __tablename__ = "payments"

    id: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"))
    owner_sub: Mapped[str]
    caller: Mapped[str]
    status: Mapped[str]
    currency: Mapped[str]
    currency_digits: Mapped[int] = mapped_column(SmallInteger)
    amount_minor: Mapped[int]
    captured_minor: Mapped[int] = mapped_column(default=0)
    processor: Mapped[str]
    processor_reference: Mapped[str | None]
    source_kind: Mapped[str]
    source_last4: Mapped[str]
    source_masked: Mapped[str]
    reply_code: Mapped[int | None] = mapped_column(SmallInteger)
    reply: Mapped[bytes | None]
    next_poll_at: Mapped[int | None]
    created_at: Mapped[int]
    claimed_at: Mapped[int]
    settled_at: Mapped[int | None]


class Receipt(Base):
    __tablename__ = "receipts"

    id: Mapped[str] = mapped_column(primary_key=True)
    payment_id: Mapped[str] = mapped_column(ForeignKey("payments.id"))
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"))
    created_at: Mapped[int]


class Event(Base):
    __tablename__ = "events"

    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str]
    type: Mapped[str]
    subject_id: Mapped[str]
    from_state: Mapped[str]
    actor: Mapped[str]
    created_at: Mapped[int]


class AuditEntry(Base):
    __tablename__ = "audit_log"

    id: Mapped[str] = mapped_column(primary_key=True)
    chain: Mapped[str]
    seq: Mapped[int]
    at: Mapped[int]
    actor: Mapped[str]
    kind: Mapped[str]
    object_id: Mapped[str]
    from_state: Mapped[str | None]
    to_state: Mapped[str]
    outcome: Mapped[str]
    prev_hash: Mapped[bytes]
    hash: Mapped[bytes]
