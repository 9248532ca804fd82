"""Rows to domain objects and back."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from payorder.domain.money import Currency, Money
from payorder.domain.order import Order
from payorder.domain.payment import Payment
from payorder.domain.receipt import Receipt
from payorder.domain.refund import Refund
from payorder.domain.source import MaskedSource
from payorder.domain.states import OrderStatus, PaymentStatus, RefundStatus
from payorder.ports.store import Lease

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

# How stored payment states look from outside: nobody needs to know which of the open ones it is.
_SHOWN_AS = {
    "processing": PaymentStatus.PROCESSING,
    "unknown": PaymentStatus.PROCESSING,
    "succeeded": PaymentStatus.SUCCEEDED,
    "failed": PaymentStatus.FAILED,
    "cancelled": PaymentStatus.CANCELLED,
}


def to_milliseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MILLISECOND


def to_time(milliseconds: int) -> datetime:
    return _EPOCH + milliseconds * _MILLISECOND


def from_order(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "owner_sub": order.owner,
        "status": order.status,
        "currency": order.total.currency.code,
        "currency_digits": order.total.currency.minor_digits,
        "total_minor": order.total.amount_minor,
        "pet_id": order.pet_id,
        "description": order.description,
        "metadata": _to_json(order.metadata),
        "created_at": to_milliseconds(order.created_at),
        "updated_at": to_milliseconds(order.updated_at),
    }


def to_order(row: Any) -> Order:
    return Order(
        id=row.id,
        owner=row.owner_sub,
        status=OrderStatus(row.status),
        total=Money(row.total_minor, Currency(row.currency, row.currency_digits)),
        pet_id=row.pet_id,
        description=row.description,
        metadata=json.loads(row.metadata),
        created_at=to_time(row.created_at),
        updated_at=to_time(row.updated_at),
        latest_payment_id=row.latest_payment_id,
        active_payment_id=row.active_payment_id,
        paid_payment_id=row.paid_payment_id,
    )


def to_receipt(row: Any) -> Receipt | None:
    """Of a row of orders with its receipt and payment (orders._GET_WITH_RECEIPT); None without one."""
    if row.receipt_id is None:
        return None
    return Receipt(
        id=row.receipt_id,
        order_id=row.id,
        payment_id=row.paid_payment_id,
        amount=Money(row.captured_minor, Currency(row.paid_currency, row.paid_currency_digits)),
        refunded_minor=row.refunded_minor,
        source=MaskedSource(**json.loads(row.source_masked)),
        description=row.description,
        generated_at=to_time(row.receipt_created_at),
    )


def from_payment(payment: Payment) -> dict[str, Any]:
    source = payment.source
    return {
        "id": payment.id,
        "order_id": payment.order_id,
        "status": payment.status,
        "currency": payment.amount.currency.code,
        "currency_digits": payment.amount.currency.minor_digits,
        "amount_minor": payment.amount.amount_minor,
        "processor": payment.processor,
        "source_kind": source.object,
        "source_last4": source.number[-4:],
        "source_masked": _to_json(source.given()),
        "source_fingerprint": payment.source_fingerprint,
        "created_at": to_milliseconds(payment.created_at),
    }


def to_payment(row: Any) -> Payment:
    return Payment(
        id=row.id,
        order_id=row.order_id,
        amount=Money(row.amount_minor, Currency(row.currency, row.currency_digits)),
        source=MaskedSource(**json.loads(row.source_masked)),
        status=_SHOWN_AS[row.status],
        created_at=to_time(row.created_at),
        processor=row.processor,
        reference=row.processor_reference,
        decline_code=row.decline_code,
        failure=row.failure,
        source_fingerprint=row.source_fingerprint,
    )


def to_refund(row: Any) -> Refund:
    """Of a row of refunds, with currency, digits and reference of its payment."""
    return Refund(
        id=row.id,
        payment_id=row.payment_id,
        order_id=row.order_id,
        amount=Money(row.amount_minor, Currency(row.currency, row.currency_digits)),
        processor=row.processor,
        reference=row.reference,
        status=RefundStatus(row.status),
    )


def lease_parameters(lease: Lease) -> dict[str, Any]:
    return {"of_processor": lease.processor, "at_most": lease.at_most, "lease": round(lease.seconds * 1000)}


def _to_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
