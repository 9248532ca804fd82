"""A refund: giving back what a payment took, or a part of it."""

from dataclasses import dataclass

from payorder.domain.money import Money
from payorder.domain.states import RefundStatus


@dataclass(frozen=True, slots=True)
class Refund:
    """A reserved refund. `processor` took the money under the id `reference`; `id` is the key of the refund there."""

    id: str
    payment_id: str
    order_id: str
    amount: Money
    processor: str
    reference: str
    status: RefundStatus
