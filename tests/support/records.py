"""Orders and payments as the store keeps them, to be varied by a test."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from payorder.adapters.database.attempts import ClaimTerms
from payorder.adapters.system import new_id
from payorder.domain.idempotency import IdempotencyKey, Reply
from payorder.domain.limits import AttemptLimits
from payorder.domain.money import Currency, Money
from payorder.domain.order import Order
from payorder.domain.origin import Origin
from payorder.domain.outcome import Approved, Declined
from payorder.domain.payment import Payment
from payorder.domain.source import MaskedSource
from payorder.domain.states import OrderStatus, PaymentStatus

GBP = Currency("GBP", 2)
TOTAL = Money(4999, GBP)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = datetime(2026, 1, 1, 12, 0, 1, 234_000, tzinfo=UTC)

NO_LIMITS = AttemptLimits(declines_per_order=0, attempts_per_owner=0, attempts_per_source=0, window_seconds=3600)
LIMITS = AttemptLimits(declines_per_order=5, attempts_per_owner=10, attempts_per_source=10, window_seconds=3600)
TERMS = ClaimTerms(poll_after_ms=25_000, limits=LIMITS)

CARD = MaskedSource(
    object="card",
    name="Zoë \N{OGHAM LETTER BEITH} O'Doe",
    number="************4242",
    exp_month=12,
    exp_year=2025,
    address_country="gb",
    address_post_code="N12 9XX",
)
BANK_ACCOUNT = MaskedSource(
    object="bank_account",
    name="J. Doe",
    number="*********2345",
    sort_code="000123",
    routing_number="110000000",
    account_type="individual",
    bank_name="Starling Bank",
    country="gb",
)


def an_order(**changes: Any) -> Order:
    order = Order(
        id=new_id(),
        owner="alice",
        status=OrderStatus.PLACED,
        total=TOTAL,
        pet_id=None,
        description=None,
        metadata={},
        created_at=NOON,
        updated_at=NOON,
    )
    return replace(order, **changes)


def a_payment(order: Order, **changes: Any) -> Payment:
    """Each with a card of its own, if not said otherwise."""
    payment_id = new_id()
    payment = Payment(
        id=payment_id,
        order_id=order.id,
        amount=order.total,
        source=CARD,
        status=PaymentStatus.PROCESSING,
        created_at=NOON,
        processor="sandbox",
        source_fingerprint=UUID(payment_id).bytes,
    )
    return replace(payment, **changes)


def succeeded(payment: Payment) -> Payment:
    return payment.after(Approved(f"sandbox_{payment.id}"))


def failed(payment: Payment) -> Payment:
    return payment.after(Declined("insufficient_funds"))


def reply_of(item: Order | Payment) -> Reply:
    """What would be answered: for a store, bytes that tell one from another."""
    code = 9 if item.status is PaymentStatus.FAILED else 0
    return Reply(code, f"{item.id} {item.status}".encode())


def a_key(key: str = "key", fingerprint: str = "f" * 64) -> IdempotencyKey:
    return IdempotencyKey(key, fingerprint)


def by(subject: str) -> Origin:
    """A call of theirs."""
    return Origin(subject, "0198b76d-0000-4000-8000-000000000000")
