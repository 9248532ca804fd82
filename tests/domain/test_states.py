"""Every pair of every state table, both ways."""

from collections.abc import Mapping
from enum import StrEnum
from itertools import product
from typing import TypeVar

import pytest

from payorder.domain.states import ORDER, PAYMENT, IllegalMove, OrderStatus, PaymentStatus, move

Status = TypeVar("Status", bound=StrEnum)

# The moves of the design, written down a second time.
ORDER_MOVES = {
    ("placed", "approved"),
    ("approved", "shipped"),
    ("shipped", "delivered"),
    ("placed", "cancelled"),
    ("approved", "cancelled"),
    ("shipped", "cancelled"),
    ("delivered", "cancelled"),
}
PAYMENT_MOVES = {
    ("processing", "succeeded"),
    ("processing", "failed"),
    ("processing", "cancelled"),
}

TABLES = [
    pytest.param(ORDER, OrderStatus, id="order"),
    pytest.param(PAYMENT, PaymentStatus, id="payment"),
]


@pytest.mark.parametrize(("from_status", "to_status"), list(product(OrderStatus, OrderStatus)))
def test_an_order_moves_as_the_design_says_and_not_otherwise(from_status: OrderStatus, to_status: OrderStatus) -> None:
    assert ((from_status.value, to_status.value) in ORDER_MOVES) == is_allowed(ORDER, from_status, to_status)


@pytest.mark.parametrize(("from_status", "to_status"), list(product(PaymentStatus, PaymentStatus)))
def test_a_payment_moves_as_the_design_says_and_not_otherwise(
    from_status: PaymentStatus, to_status: PaymentStatus
) -> None:
    assert ((from_status.value, to_status.value) in PAYMENT_MOVES) == is_allowed(PAYMENT, from_status, to_status)


@pytest.mark.parametrize(("table", "statuses"), TABLES)
def test_a_table_knows_every_status_and_no_other(
    table: Mapping[StrEnum, frozenset[StrEnum]], statuses: type[StrEnum]
) -> None:
    assert set(statuses) == set(table)
    assert frozenset[StrEnum]().union(*table.values()) <= set(statuses)


@pytest.mark.parametrize("status", [PaymentStatus.SUCCEEDED, PaymentStatus.FAILED, PaymentStatus.CANCELLED])
def test_a_payment_that_ended_stays_as_it_is(status: PaymentStatus) -> None:
    assert frozenset() == PAYMENT[status]


def test_an_illegal_move_names_both_states() -> None:
    with pytest.raises(IllegalMove, match="succeeded -> failed"):
        move(PAYMENT, PaymentStatus.SUCCEEDED, PaymentStatus.FAILED)


def is_allowed(table: Mapping[Status, frozenset[Status]], from_status: Status, to_status: Status) -> bool:
    try:
        moved = move(table, from_status, to_status)
    except IllegalMove:
        return False
    assert to_status is moved
    return True
