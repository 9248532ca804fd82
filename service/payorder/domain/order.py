"""An order: what is to be paid, by whom, and how far it has come."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from payorder.domain.errors import (
    AmountMismatch,
    CurrencyMismatch,
    IllegalStatusChange,
    OrderAlreadyPaid,
    OrderCancelled,
    PaymentInProgress,
    ReceiptNotFound,
)
from payorder.domain.money import Money
from payorder.domain.receipt import Receipt
from payorder.domain.states import FULFILMENT, OrderStatus


@dataclass(frozen=True, slots=True)
class Order:
    """An order of one owner. `active_payment_id` is the payment that is being made, `paid_payment_id` the one that was.

    A paid order that is cancelled keeps its payment. `receipt` is read where it is asked for, and stays too.
    """

    id: str
    owner: str
    status: OrderStatus
    total: Money
    pet_id: str | None
    description: str | None
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    latest_payment_id: str | None = None
    active_payment_id: str | None = None
    paid_payment_id: str | None = None
    receipt: Receipt | None = None

    def receipt_if_paid(self) -> Receipt:
        """Raises ReceiptNotFound."""
        if self.receipt is None:
            raise ReceiptNotFound
        return self.receipt

    def refuse_unless_payable(self, amount: Money) -> None:
        """Raises the refusal that a payment of `amount` deserves now, checked in this order."""
        self._refuse_if_closed()
        self.refuse_unless_total(amount)

    def refuse_unless_total(self, amount: Money) -> None:
        """Raises CurrencyMismatch, AmountMismatch."""
        if amount.currency.code != self.total.currency.code:
            raise CurrencyMismatch
        if amount.amount_minor != self.total.amount_minor:
            raise AmountMismatch

    def refuse_unless_cancellable(self) -> None:
        """Raises PaymentInProgress while a payment is being made, and OrderAlreadyPaid once the goods have left."""
        self.refuse_while_paying()
        if self.paid_payment_id is not None and self.status in (OrderStatus.SHIPPED, OrderStatus.DELIVERED):
            raise OrderAlreadyPaid(self.paid_payment_id)

    def refuse_while_paying(self) -> None:
        if self.active_payment_id is not None:
            raise PaymentInProgress(self.active_payment_id)

    def refuse_unless_next(self, status: OrderStatus) -> None:
        """Raises IllegalStatusChange for all but an approved order that is shipped, and a shipped one delivered."""
        if FULFILMENT.get(self.status) is not status:
            raise IllegalStatusChange(self.status)

    def _refuse_if_closed(self) -> None:
        if self.status is OrderStatus.CANCELLED:
            raise OrderCancelled
        if self.paid_payment_id is not None:
            raise OrderAlreadyPaid(self.paid_payment_id)
        self.refuse_while_paying()
