"""What is read of events by those who watch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from payorder.domain.order import Order
from payorder.domain.origin import Owner
from payorder.domain.webhook import EVENT_TYPES


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """Of an order, or of a payment or refund of it: `subject_id` says of which. `sequence` counts an order's from 1.

    `type` is the stored one, such as "order.approved".
    """

    sequence: int
    id: str
    type: str
    subject_id: str
    previous_status: str
    actor: str
    at: datetime

    @property
    def public_type(self) -> str:
        return EVENT_TYPES[self.type]

    @property
    def new_status(self) -> str:
        return self.type.partition(".")[2]


class EventStore(Protocol):
    """Each method is one read. Raises Busy as Store does."""

    async def get_order(self, order_id: str, owner: Owner) -> Order:
        """Raises OrderNotFound, for an unknown order and for another owner's alike."""
        ...

    async def list_events(self, order_id: str, *, after: int, at_most: int) -> list[OrderEvent]:
        """Those that follow number `after`, in their order: none can turn up later among those that are answered."""
        ...

    async def newest_sequences(self, order_ids: Collection[str]) -> Mapping[str, int]:
        """The number of the newest event of each order, 0 if it has none."""
        ...
