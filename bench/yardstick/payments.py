"""Pay an order: one transaction that claims it, the charge, and one that writes down how it ended."""

import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from fastapi import HTTPException
from iso4217 import Currency as IsoCurrency
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from bench.yardstick.models import AuditEntry, Event, Order, Payment, Receipt
from bench.yardstick.schemas import CardIn, CardOut, PaymentIn, PaymentOut
from payorder.adapters.system import new_id
from payorder.domain.money import Currency, Money
from payorder.domain.outcome import Approved
from payorder.domain.secret import Secret
from payorder.domain.source import Address, Card
from payorder.ports.processor import Processor

_POLL_AFTER_MS = 25_000


async def pay(session: AsyncSession, processor: Processor, order_id: str, owner: str, request: PaymentIn) -> Payment:
    order, payment = await _claim(session, order_id, owner, request)
    charged = Money(payment.amount_minor, Currency(payment.currency, payment.currency_digits))
    outcome = await processor.charge(payment.id, charged, _card(request.source))
    if not isinstance(outcome, Approved):
        raise HTTPException(501, "the benchmark pays with cards that are approved")
    await _settle(session, order, payment, request, outcome.reference)
    return payment


async def _claim(session: AsyncSession, order_id: str, owner: str, request: PaymentIn) -> tuple[Order, Payment]:
    async with session.begin():
        order = await session.scalar(
            select(Order).where(Order.id == order_id, Order.owner_sub == owner).with_for_update()
        )
        if order is None:
            raise HTTPException(404, "no such order")
        _refuse_unless_payable(order, request)
        payment = _new_payment(order, owner, request)
        session.add(payment)
        order.active_payment_id = order.latest_payment_id = payment.id
        order.updated_at = payment.created_at
        _audit(session, order, payment.created_at, owner, [("payment", payment.id, None, "processing")])
    return order, payment


async def _settle(session: AsyncSession, order: Order, payment: Payment, request: PaymentIn, reference: str) -> None:
    async with session.begin():
        await session.refresh(order, with_for_update=True)
        if order.active_payment_id != payment.id:
            raise HTTPException(409, "settled by somebody else")
        at = _now()
        payment.status = "succeeded"
        payment.processor_reference = reference
        payment.captured_minor = payment.amount_minor
        payment.reply_code = 0
        payment.reply = _answer(payment, request).model_dump_json(by_alias=True).encode()
        payment.next_poll_at = None
        payment.settled_at = at
        order.status = "approved"
        order.active_payment_id = None
        order.paid_payment_id = payment.id
        order.updated_at = at
        session.add(Receipt(id=payment.id, payment_id=payment.id, order_id=order.id, created_at=at))
        changes = [("payment", payment.id, "processing", "succeeded"), ("order", order.id, "placed", "approved")]
        _publish(session, order, at, changes)
        _audit(session, order, at, "payorder", changes)


def _refuse_unless_payable(order: Order, request: PaymentIn) -> None:
    if order.status != "placed":
        raise HTTPException(409, "not payable")
    if order.active_payment_id is not None:
        raise HTTPException(409, "a payment is in progress")
    if request.currency != order.currency or _amount_minor(request) != order.total_minor:
        raise HTTPException(422, "not what the order costs")


def _new_payment(order: Order, owner: str, request: PaymentIn) -> Payment:
    at = _now()
    return Payment(
        id=new_id(),
        order_id=order.id,
        owner_sub=owner,
        caller=owner,
        status="processing",
        currency=request.currency,
        currency_digits=order.currency_digits,
        amount_minor=order.total_minor,
        processor="sandbox",
        source_kind="card",
        source_last4=request.source.number.last4,
        source_masked=_masked(request.source).model_dump_json(exclude_none=True),
        next_poll_at=at + _POLL_AFTER_MS,
        created_at=at,
        claimed_at=at,
    )


Change = tuple[str, str, str | None, str]


def _audit(session: AsyncSession, order: Order, at: int, actor: str, changes: Sequence[Change]) -> None:
    for kind, object_id, from_state, to_state in changes:
        order.audit_seq += 1
        told = f"{order.id} {order.audit_seq} {at} {actor} {kind} {object_id} {from_state} {to_state}"
        order.audit_previous = order.audit_hash
        order.audit_hash = hashlib.sha256(order.audit_hash + told.encode()).digest()
        session.add(
            AuditEntry(
                id=new_id(),
                chain=order.id,
                seq=order.audit_seq,
                at=at,
                actor=actor,
                kind=kind,
                object_id=object_id,
                from_state=from_state,
                to_state=to_state,
                outcome="done",
                prev_hash=order.audit_previous,
                hash=order.audit_hash,
            )
        )


def _publish(session: AsyncSession, order: Order, at: int, changes: Sequence[Change]) -> None:
    for kind, object_id, from_state, to_state in changes:
        order.event_seq += 1
        session.add(
            Event(
                order_id=order.id,
                seq=order.event_seq,
                id=new_id(),
                type=f"{kind}.{to_state}",
                subject_id=object_id,
                from_state=from_state,
                actor="payorder",
                created_at=at,
            )
        )


def _answer(payment: Payment, request: PaymentIn) -> PaymentOut:
    return PaymentOut(
        id=payment.id,
        amount=request.amount,
        currency=payment.currency,
        source=_masked(request.source),
        status=payment.status,
        created_at=datetime.fromtimestamp(payment.created_at / 1000, UTC),
    )


def _masked(card: CardIn) -> CardOut:
    return CardOut(
        name=card.name,
        number="*" * 12 + card.number.last4,
        exp_month=card.exp_month,
        exp_year=card.exp_year,
        address_country=card.address_country,
        address_post_code=card.address_post_code,
    )


def _card(card: CardIn) -> Card:
    return Card(
        name=card.name,
        number=Secret(card.number),
        cvc=Secret(card.cvc.get_secret_value()) if card.cvc else None,
        exp_month=card.exp_month,
        exp_year=card.exp_year,
        address=Address(card.address_line1, card.address_line2, card.address_city),
    )


def _amount_minor(request: PaymentIn) -> int:
    return int(request.amount.scaleb(IsoCurrency(request.currency).exponent or 0))


def _now() -> int:
    return time.time_ns() // 1_000_000
