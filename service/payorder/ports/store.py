"""What must be remembered, in the workflows' words."""

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from payorder.domain.order import Order
from payorder.domain.payment import Payment


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list: at most `size` entries that come after the entry `after`, newest first."""

    size: int
    after: str | None


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page, and whether more follow it."""

    items: list[Item]
    has_more: bool

    @classmethod
    def of(cls, items: list[Item], size: int) -> "Page[Item]":
        """A page of `size` out of `items`, which were read with one item to spare."""
        return cls(items[:size], len(items) > size)


class Store(Protocol):
    """Orders and payments. Every method is one short transaction, retried inside when the database asks for it.

    Raises Busy when no connection is to be had in time or the database is away: then nothing happened.
    """

    async def add_order(self, order: Order) -> None: ...

    async def get_order(self, order_id: str, owner: str) -> Order:
        """Raises OrderNotFound, for an unknown order and for another owner's alike."""
        ...

    async def list_orders(self, owner: str, page: PageRequest) -> Page[Order]: ...

    async def cancel_order(self, order_id: str, owner: str, at: datetime) -> Order:
        """Raises OrderNotFound, PaymentInProgress, OrderAlreadyPaid. A cancelled order is answered as it is."""
        ...

    async def claim(self, payment: Payment, owner: str) -> None:
        """Write a payment that is processing, and with it the exclusive right to charge.

        Afterwards no other payment of the order can be claimed until this one has failed.
        Raises OrderNotFound, OrderCancelled, OrderAlreadyPaid, PaymentInProgress, CurrencyMismatch, AmountMismatch.
        """
        ...

    async def settle(self, payment: Payment, at: datetime) -> Payment:
        """Write the end of a processing payment and of its order. The first to settle wins; all get the winner's."""
        ...

    async def get_payment(self, payment_id: str, owner: str) -> Payment:
        """Raises OrderNotFound."""
        ...

    async def get_latest_payment(self, order_id: str, owner: str) -> Payment:
        """Raises OrderNotFound, also for an order that nobody has tried to pay."""
        ...

    async def list_payments(self, order_id: str, owner: str, page: PageRequest) -> Page[Payment]:
        """Raises OrderNotFound."""
        ...

    async def is_ready(self) -> bool:
        """Whether the database answers now and has this version's schema."""
        ...

    async def close(self) -> None: ...
