"""What has happened to an order, and all that is told of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from payorder.domain.order import Order
from payorder.domain.payment import Payment
from payorder.domain.refund import Refund

# What a callback is told, by the stored type of the event that ends its wait.
CALLBACK_STATUS: Mapping[str, str] = {
    "order.approved": "COMPLETED",
    "order.cancelled": "FAILED",
    "payment.failed": "FAILED",
    "payment.cancelled": "FAILED",
}


@dataclass(frozen=True, slots=True)
class Event:
    """The `sequence`-th event of its order, counted from 1, of the stored `type` (domain.webhook.EVENT_TYPES).

    Order, payment and refund are as they were when they were read, which may be after the event. An event of a payment
    has a payment, with `receipt_at` if it succeeded; an event of a refund has both.
    """

    id: str
    sequence: int
    type: str
    from_state: str
    actor: str
    at: datetime
    order: Order
    payment: Payment | None = None
    refund: Refund | None = None
    receipt_at: datetime | None = None

    @property
    def to_state(self) -> str:
        return self.type.rpartition(".")[2]
