"""What receivers read is what REST answers: the JSON of the same messages, made without them."""

import json
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from payorder.adapters.system import new_id
from payorder.domain.event import CALLBACK_STATUS, Event
from payorder.domain.money import Currency, Money
from payorder.domain.order import Order
from payorder.domain.payment import Payment
from payorder.domain.refund import Refund
from payorder.domain.states import OrderStatus, PaymentStatus, RefundStatus
from payorder.domain.webhook import EVENT_TYPES
from payorder.edge.event_bodies import JsonBodies
from payorder.edge.translate import to_order_message, to_payment_message
from support.records import BANK_ACCOUNT, CARD, LATER, NOON, a_payment, an_order

BODIES = JsonBodies(public_url="https://shop.example")
JPY, KWD = Money(500, Currency("JPY", 0)), Money(1234, Currency("KWD", 3))
FULL = an_order(
    pet_id="pet",
    description="Zoë's \N{SNAKE}",
    metadata={"a": "1", "b": ""},
    latest_payment_id=new_id(),
    updated_at=LATER,
)


def as_rest_answers(message: Any) -> Any:
    """As the service's transcoder prints messages: what has no value is printed too, unless it is optional."""
    return MessageToDict(message, always_print_fields_with_no_presence=True)


def read(event: Event) -> dict[str, Any]:
    return dict(json.loads(BODIES.event(event)))


def of_order(order: Order, type_: str = "order.approved") -> Event:
    return Event(id=new_id(), sequence=3, type=type_, from_state="placed", actor="alice", at=LATER, order=order)


def of_payment(payment: Payment, type_: str = "payment.succeeded", **changes: Any) -> Event:
    return replace(of_order(an_order(id=payment.order_id), type_), payment=payment, **changes)


ORDERS = {
    "bare": an_order(),
    "full": FULL,
    "JPY": an_order(total=JPY),
    "KWD": an_order(total=KWD),
    **{status.value: an_order(status=status) for status in OrderStatus},
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_an_order_reads_as_over_rest(order: Order) -> None:
    assert as_rest_answers(to_order_message(order)) == read(of_order(order))["data"]["order"]


PAYMENTS = {
    "card": a_payment(an_order()),
    "card of a brand": a_payment(an_order(), source=replace(CARD, brand="Visa")),
    "bare card": a_payment(an_order(), source=replace(CARD, address_country=None, address_post_code=None)),
    "bank account": a_payment(an_order(), source=BANK_ACCOUNT),
    "JPY": a_payment(an_order(total=JPY)),
    "KWD": a_payment(an_order(total=KWD), created_at=LATER),
    **{status.value: a_payment(an_order(), status=status) for status in PaymentStatus},
}


@pytest.mark.parametrize("payment", PAYMENTS.values(), ids=PAYMENTS)
def test_a_payment_reads_as_over_rest(payment: Payment) -> None:
    told = read(of_payment(payment, receipt_at=NOON))["data"]["payment"]
    assert as_rest_answers(to_payment_message(payment)) == told


@pytest.mark.parametrize("type_", EVENT_TYPES)
def test_every_event_has_its_envelope(type_: str) -> None:
    refund = Refund(new_id(), new_id(), FULL.id, KWD, "sandbox", "reference", RefundStatus.SUCCEEDED)
    payment = None if type_.startswith("order.") else a_payment(FULL)
    event = replace(of_order(FULL, type_), payment=payment, refund=refund if type_.startswith("refund.") else None)
    told = read(event)
    assert {"eventId", "eventType", "timestamp", "sequence", "data"} == set(told)
    assert (event.id, EVENT_TYPES[type_], 3) == (told["eventId"], told["eventType"], told["sequence"])
    assert "2026-01-01T12:00:01.234Z" == told["timestamp"]


def test_a_change_of_an_orders_status_says_from_what_to_what_when_and_by_whom() -> None:
    data = read(of_order(FULL, "order.shipped"))["data"]
    del data["order"]
    expected = {"previousStatus": "placed", "newStatus": "shipped", "changedBy": "alice"}
    assert expected | {"changedAt": "2026-01-01T12:00:01.234Z"} == data


def test_a_payment_that_succeeded_has_its_receipt_and_no_other_has() -> None:
    payment = a_payment(FULL)
    receipt = {
        "receiptId": payment.id,
        "receiptUrl": f"https://shop.example/orders/{FULL.id}/receipt",
        "generatedAt": "2026-01-01T12:00:00Z",
    }
    assert receipt == read(of_payment(payment, receipt_at=NOON))["data"]["receipt"]
    assert {"payment", "order"} == set(read(of_payment(payment, "payment.failed"))["data"])


def test_a_refund_says_how_much_of_which_payment() -> None:
    payment = a_payment(an_order(total=KWD))
    refund = Refund(new_id(), payment.id, payment.order_id, KWD, "sandbox", "reference", RefundStatus.FAILED)
    data = read(of_payment(payment, "refund.failed", refund=refund))["data"]
    expected = {"id": refund.id, "paymentId": payment.id, "amount": "1.234", "currency": "KWD", "status": "failed"}
    assert {"refund", "payment", "order"} == set(data)
    assert expected == data["refund"]


@pytest.mark.parametrize("type_", CALLBACK_STATUS)
def test_a_callback_says_how_the_order_ended(type_: str) -> None:
    told = json.loads(BODIES.callback("endpoint", of_order(FULL, type_)))
    assert as_rest_answers(to_order_message(FULL)) == told.pop("result")
    status = "COMPLETED" if type_ == "order.approved" else "FAILED"
    expected = {"requestId": "endpoint", "orderId": FULL.id, "status": status}
    assert expected | {"timestamp": "2026-01-01T12:00:01.234Z"} == told
