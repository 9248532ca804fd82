"""What receivers of webhooks read: the JSON that REST answers, without the detour over messages (see tests/edge)."""

from collections.abc import Mapping
from datetime import datetime

import orjson

from payorder.domain.event import CALLBACK_STATUS, Event
from payorder.domain.json_time import to_json_time
from payorder.domain.order import Order
from payorder.domain.payment import Payment
from payorder.domain.refund import Refund
from payorder.domain.source import MaskedSource
from payorder.domain.webhook import DISABLED_EVENT, EVENT_TYPES, TEST_EVENT
from payorder.ports.outbox import DisabledEndpoint

Json = Mapping[str, object]

_SOURCE_NAMES = {
    name: name.split("_")[0] + "".join(word.capitalize() for word in name.split("_")[1:])
    for name in MaskedSource.__slots__
}


class JsonBodies:
    """Implements payorder.ports.outbox.EventBodies. `public_url`: what paths in the bodies begin with."""

    def __init__(self, *, public_url: str) -> None:
        self._public_url = public_url

    def event(self, event: Event) -> bytes:
        return orjson.dumps(
            {
                "eventId": event.id,
                "eventType": EVENT_TYPES[event.type],
                "timestamp": to_json_time(event.at),
                "sequence": event.sequence,
                "data": self._data(event),
            }
        )

    def callback(self, endpoint_id: str, event: Event) -> bytes:
        return render_callback(endpoint_id, event.order, CALLBACK_STATUS[event.type], event.at)

    def disabled(self, event_id: str, endpoint: DisabledEndpoint, at: datetime) -> bytes:
        return _of_no_order(
            event_id, DISABLED_EVENT, at, {"endpointId": endpoint.id, "disabledBecause": endpoint.because}
        )

    def _data(self, event: Event) -> Json:
        order = to_order_json(event.order)
        if event.payment is None:
            return {
                "order": order,
                "previousStatus": event.from_state,
                "newStatus": event.to_state,
                "changedAt": to_json_time(event.at),
                "changedBy": event.actor,
            }
        data: dict[str, object] = {"payment": to_payment_json(event.payment), "order": order}
        if event.refund is not None:
            return {"refund": _to_refund_json(event.refund)} | data
        if event.receipt_at is not None:
            data["receipt"] = self._receipt(event.payment, event.receipt_at)
        return data

    def _receipt(self, payment: Payment, generated_at: datetime) -> Json:
        return {
            "receiptId": payment.id,
            "receiptUrl": f"{self._public_url}/orders/{payment.order_id}/receipt",
            "generatedAt": to_json_time(generated_at),
        }


def render_callback(endpoint_id: str, order: Order, status: str, at: datetime) -> bytes:
    """The documented callback of an order whose end is known; `status` as in CALLBACK_STATUS."""
    return orjson.dumps(
        {
            "requestId": endpoint_id,
            "orderId": order.id,
            "status": status,
            "result": to_order_json(order),
            "timestamp": to_json_time(at),
        }
    )


def render_test(event_id: str, at: datetime) -> bytes:
    """An event about nothing, to see whether it arrives."""
    return _of_no_order(event_id, TEST_EVENT, at, {})


def _of_no_order(event_id: str, event_type: str, at: datetime, data: Json) -> bytes:
    return orjson.dumps(
        {"eventId": event_id, "eventType": event_type, "timestamp": to_json_time(at), "sequence": 0, "data": data}
    )


def to_order_json(order: Order) -> Json:
    """As translate.to_order_message becomes in JSON, with what is always printed."""
    json: dict[str, object] = {
        "id": order.id,
        "userId": order.owner,
        "status": order.status,
        "totalAmount": str(order.total),
        "currency": order.total.currency.code,
        "metadata": dict(order.metadata),
        "createdAt": to_json_time(order.created_at),
        "updatedAt": to_json_time(order.updated_at),
    }
    if order.pet_id is not None:
        json["petId"] = order.pet_id
    if order.description is not None:
        json["description"] = order.description
    if order.latest_payment_id is not None:
        json["latestPaymentId"] = order.latest_payment_id
    return json


def to_payment_json(payment: Payment) -> Json:
    """As translate.to_payment_message becomes in JSON."""
    return {
        "id": payment.id,
        "amount": str(payment.amount),
        "currency": payment.amount.currency.code,
        "source": {_SOURCE_NAMES[name]: value for name, value in payment.source.shown().items()},
        "status": payment.status,
        "createdAt": to_json_time(payment.created_at),
    }


def _to_refund_json(refund: Refund) -> Json:
    return {
        "id": refund.id,
        "paymentId": refund.payment_id,
        "amount": str(refund.amount),
        "currency": refund.amount.currency.code,
        "status": refund.status,
    }
