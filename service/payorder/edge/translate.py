"""Protobuf to domain and back. Nothing is decided here but whether a value can be read."""

import base64
import binascii
from datetime import datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from iso4217 import Currency as IsoCurrency

from payments.v1.order_event_pb2 import OrderEvent as OrderEventMessage
from payments.v1.order_pb2 import Order as OrderMessage
from payments.v1.order_service_pb2 import CreateOrderRequest, ListOrdersRequest, WatchOrderRequest
from payments.v1.payment_pb2 import OrderPayment
from payments.v1.payment_service_pb2 import ListPaymentsRequest, PayOrderRequest
from payments.v1.webhook_service_pb2 import ListWebhookEndpointsRequest
from payorder.domain.errors import BrokenRule, FieldFault, InvalidFields, MalformedRequest
from payorder.domain.idempotency import IdempotencyKey
from payorder.domain.money import Currency, Money, parse_money
from payorder.domain.order import Order
from payorder.domain.origin import Origin
from payorder.domain.payment import Payment
from payorder.domain.webhook import Endpoint
from payorder.edge.metadata import metadata_values
from payorder.edge.sources import to_masked_message, to_source
from payorder.ports.store import Page, PageRequest
from payorder.workflows.create_order import CreateOrderCommand
from payorder.workflows.pay_order import PayOrderCommand
from payorder.workflows.watch_order import News

PAGE_SIZE_DEFAULT = 20
_LAST_EVENT_ID = "last-event-id"
_SEQUENCE_DIGITS_MAX = 9


def to_create_order_command(
    request: CreateOrderRequest, owner: str, origin: Origin, key: IdempotencyKey | None
) -> CreateOrderCommand:
    return CreateOrderCommand(
        owner=owner,
        origin=origin,
        total=to_money("totalAmount", request.total_amount, request.currency),
        pet_id=request.pet_id if request.HasField("pet_id") else None,
        description=request.description if request.HasField("description") else None,
        metadata=dict(request.metadata),
        key=key,
    )


def to_pay_order_command(
    request: PayOrderRequest, origin: Origin, key: IdempotencyKey | None, *, answer_within_seconds: float
) -> PayOrderCommand:
    """Raises InvalidFields with what is wrong with the amount, the currency and the source, all at once."""
    faults: list[FieldFault] = []
    try:
        amount = to_money("amount", request.payment.amount, request.payment.currency)
    except InvalidFields as refusal:
        faults.extend(refusal.faults)
    try:
        source = to_source(request.payment.source)
    except InvalidFields as refusal:
        faults.extend(refusal.faults)
    if faults:
        raise InvalidFields(faults)
    return PayOrderCommand(
        order_id=to_id(request.order_id),
        origin=origin,
        amount=amount,
        source=source,
        key=key,
        answer_within_seconds=answer_within_seconds,
    )


def to_id(text: str) -> str:
    """The one spelling of a UUID: lower case."""
    return text.lower()


def to_time(field: str, text: str) -> datetime:
    """Of RFC 3339, in the form that the contract asks for. Raises InvalidFields."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidFields([FieldFault(field, "invalid_format", "is not a time of RFC 3339")]) from None


def to_page_request(request: ListOrdersRequest | ListPaymentsRequest | ListWebhookEndpointsRequest) -> PageRequest:
    size = request.page_size if request.HasField("page_size") else PAGE_SIZE_DEFAULT
    return PageRequest(size=size, after=_from_page_token(request.page_token) if request.page_token else None)


def to_next_page_token(page: Page[Order] | Page[Payment] | Page[Endpoint]) -> str:
    """Empty on the last page. Opaque (AIP-158); within, the id of the page's last entry."""
    if not page.has_more:
        return ""
    return base64.urlsafe_b64encode(UUID(page.items[-1].id).bytes).decode().rstrip("=")


def after_sequence_of(request: WatchOrderRequest) -> int:
    """A client that connects again sends the id of the last event it has seen (WHATWG HTML, section 9.2)."""
    for value in metadata_values(_LAST_EVENT_ID)[:1]:
        if not (value.isascii() and value.isdigit() and len(value) <= _SEQUENCE_DIGITS_MAX):
            raise MalformedRequest("The Last-Event-ID is not a number of an event.")
        return int(value)
    return request.after_sequence


def to_event_message(news: News) -> OrderEventMessage:
    event = news.event
    return OrderEventMessage(
        sequence=event.sequence,
        event_id=event.id,
        event_type=event.public_type,
        subject_id=event.subject_id,
        previous_status=event.previous_status,
        new_status=event.new_status,
        changed_by=event.actor,
        timestamp=to_timestamp(event.at),
        order=to_order_message(news.order),
    )


def to_order_message(order: Order) -> OrderMessage:
    return OrderMessage(
        id=order.id,
        pet_id=order.pet_id,
        user_id=order.owner,
        status=order.status,
        total_amount=str(order.total),
        currency=order.total.currency.code,
        description=order.description,
        metadata=order.metadata,
        created_at=to_timestamp(order.created_at),
        updated_at=to_timestamp(order.updated_at),
        latest_payment_id=order.latest_payment_id,
    )


def to_payment_message(payment: Payment) -> OrderPayment:
    return OrderPayment(
        id=payment.id,
        amount=str(payment.amount),
        currency=payment.amount.currency.code,
        source=to_masked_message(payment.source),
        status=payment.status,
        created_at=to_timestamp(payment.created_at),
    )


def to_money(field: str, amount: str, currency_code: str) -> Money:
    try:
        return parse_money(amount, to_currency(currency_code))
    except BrokenRule as broken:
        name = "currency" if broken.code == "unknown_currency" else field
        raise InvalidFields([FieldFault(name, broken.code, broken.message)]) from None


def to_currency(code: str) -> Currency:
    try:
        digits = IsoCurrency(code).exponent
    except ValueError:
        digits = None
    if digits is None:  # Gold, test codes and the like have no minor unit and pay for nothing.
        raise BrokenRule("unknown_currency", "is not an ISO 4217 code of a currency in use")
    return Currency(code, digits)


def _from_page_token(token: str) -> str:
    try:
        return str(UUID(bytes=base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))))
    except (ValueError, binascii.Error):
        raise InvalidFields([FieldFault("pageToken", "invalid_format", "is not a token of this service")]) from None


def to_timestamp(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
