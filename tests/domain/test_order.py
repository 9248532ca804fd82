"""When an order may be paid and when it may be cancelled, and which refusal comes first."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from payorder.domain.errors import (
    AmountMismatch,
    CurrencyMismatch,
    OrderAlreadyPaid,
    OrderCancelled,
    PaymentInProgress,
    Refusal,
)
from payorder.domain.money import Currency, Money
from payorder.domain.order import Order
from payorder.domain.states import OrderStatus

GBP = Currency("GBP", 2)
EUR = Currency("EUR", 2)
TOTAL = Money(4999, GBP)
PLACED = Order(
    id="order",
    owner="owner",
    status=OrderStatus.PLACED,
    total=TOTAL,
    pet_id=None,
    description=None,
    metadata={},
    created_at=datetime(2025, 1, 2, tzinfo=UTC),
    updated_at=datetime(2025, 1, 2, tzinfo=UTC),
)
IN_PROGRESS = replace(PLACED, latest_payment_id="live", active_payment_id="live")
PAID = replace(PLACED, status=OrderStatus.APPROVED, latest_payment_id="paid", paid_payment_id="paid")
CANCELLED = replace(PLACED, status=OrderStatus.CANCELLED)
OTHER_CURRENCY = Money(4999, EUR)
OTHER_AMOUNT = Money(4998, GBP)
OTHER_BOTH = Money(4998, EUR)

# Each row has the fault of its refusal and every fault below it, so a check that moved would be seen.
PAID_AND_IN_PROGRESS = replace(PAID, active_payment_id="live")
EVERY_FAULT = replace(PAID_AND_IN_PROGRESS, status=OrderStatus.CANCELLED)
REFUSALS = [
    pytest.param(EVERY_FAULT, OTHER_BOTH, OrderCancelled, id="cancelled"),
    pytest.param(PAID_AND_IN_PROGRESS, OTHER_BOTH, OrderAlreadyPaid, id="paid"),
    pytest.param(IN_PROGRESS, OTHER_BOTH, PaymentInProgress, id="in progress"),
    pytest.param(PLACED, OTHER_BOTH, CurrencyMismatch, id="currency"),
    pytest.param(PLACED, OTHER_AMOUNT, AmountMismatch, id="amount"),
]


@pytest.mark.parametrize(("order", "amount", "refusal"), REFUSALS)
def test_the_first_refusal_wins(order: Order, amount: Money, refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        order.refuse_unless_payable(amount)


@pytest.mark.parametrize(
    ("order", "refusal"),
    [(CANCELLED, OrderCancelled), (PAID, OrderAlreadyPaid), (IN_PROGRESS, PaymentInProgress)],
)
def test_the_right_amount_does_not_open_a_closed_order(order: Order, refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        order.refuse_unless_payable(TOTAL)


def test_the_whole_amount_in_the_orders_currency_pays_a_placed_order() -> None:
    PLACED.refuse_unless_payable(Money(4999, Currency("GBP", 2)))


@pytest.mark.parametrize("amount_minor", [1, 4998, 5000, 499900, -4999])
def test_no_other_amount_pays_an_order(amount_minor: int) -> None:
    with pytest.raises(AmountMismatch):
        PLACED.refuse_unless_payable(Money(amount_minor, GBP))


def test_the_same_number_in_another_currency_does_not_pay_an_order() -> None:
    with pytest.raises(CurrencyMismatch):
        PLACED.refuse_unless_payable(OTHER_CURRENCY)


@pytest.mark.parametrize("status", [OrderStatus.APPROVED, OrderStatus.SHIPPED, OrderStatus.DELIVERED])
def test_a_paid_order_is_not_paid_again(status: OrderStatus) -> None:
    with pytest.raises(OrderAlreadyPaid) as refusal:
        replace(PAID, status=status).refuse_unless_payable(TOTAL)
    assert "paid" == refusal.value.payment_id


def test_a_second_attempt_is_told_which_payment_is_in_progress() -> None:
    with pytest.raises(PaymentInProgress) as refusal:
        IN_PROGRESS.refuse_unless_payable(TOTAL)
    assert "live" == refusal.value.payment_id


def test_an_attempt_that_failed_leaves_the_order_payable_and_cancellable() -> None:
    order = replace(PLACED, latest_payment_id="failed")
    order.refuse_unless_payable(TOTAL)
    order.refuse_unless_cancellable()


@pytest.mark.parametrize("order", [PLACED, CANCELLED], ids=["placed", "cancelled before"])
def test_an_order_without_a_live_payment_may_be_cancelled(order: Order) -> None:
    order.refuse_unless_cancellable()


def test_an_order_is_not_cancelled_under_a_live_payment() -> None:
    with pytest.raises(PaymentInProgress) as refusal:
        IN_PROGRESS.refuse_unless_cancellable()
    assert "live" == refusal.value.payment_id


def test_a_paid_order_may_be_cancelled_until_it_is_shipped() -> None:
    PAID.refuse_unless_cancellable()


@pytest.mark.parametrize("status", [OrderStatus.SHIPPED, OrderStatus.DELIVERED])
def test_an_order_that_has_left_is_not_cancelled(status: OrderStatus) -> None:
    with pytest.raises(OrderAlreadyPaid) as refusal:
        replace(PAID, status=status).refuse_unless_cancellable()
    assert "paid" == refusal.value.payment_id
