"""A refund: giving back what a payment took, or a part of it."""

from dataclasses import dataclass

from payorder.domain.money import Money
from payorder.domain.states import RefundStatus


@dataclass(frozen=True, slots=True)
class Refund:
    """A reserved refund. `reference` is the processor's id of the charge; `id` is the key of the refund there."""

    id: str
    payment_id: str
    order_id: str
    amount: Money
    reference: str
    status: RefundStatus
