"""What each outcome makes of a payment."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from payorder.domain.money import Currency, Money
from payorder.domain.outcome import Approved, Declined, Failed, Outcome, Unknown
from payorder.domain.payment import Payment
from payorder.domain.source import MaskedSource
from payorder.domain.states import IllegalMove, PaymentStatus

PROCESSING = Payment(
    id="payment",
    order_id="order",
    amount=Money(4999, Currency("GBP", 2)),
    source=MaskedSource(object="card", name="J. Doe", number="************4242"),
    status=PaymentStatus.PROCESSING,
    created_at=datetime(2025, 1, 2, tzinfo=UTC),
    processor="sandbox",
)

AFTER = [
    (Approved("reference"), replace(PROCESSING, status=PaymentStatus.SUCCEEDED, reference="reference")),
    (Declined("lost_card"), replace(PROCESSING, status=PaymentStatus.FAILED, decline_code="lost_card")),
    (Failed("unreachable"), replace(PROCESSING, status=PaymentStatus.FAILED, failure="unreachable")),
    (Unknown(), PROCESSING),
]


@pytest.mark.parametrize(("outcome", "payment"), AFTER)
def test_an_outcome_moves_a_payment_and_changes_nothing_else(outcome: Outcome, payment: Payment) -> None:
    assert payment == PROCESSING.after(outcome)


def test_every_outcome_has_its_row() -> None:
    assert set(Outcome.__args__) == {type(outcome) for outcome, _ in AFTER}


def test_a_payment_is_not_changed_in_place() -> None:
    PROCESSING.after(Approved("reference"))
    assert PaymentStatus.PROCESSING is PROCESSING.status


@pytest.mark.parametrize("status", sorted(set(PaymentStatus) - {PaymentStatus.PROCESSING}))
@pytest.mark.parametrize("outcome", [Approved("late"), Declined("late"), Failed("late")])
def test_a_payment_that_ended_takes_no_other_outcome(status: PaymentStatus, outcome: Outcome) -> None:
    with pytest.raises(IllegalMove):
        replace(PROCESSING, status=status).after(outcome)


@pytest.mark.parametrize("status", PaymentStatus)
def test_not_knowing_changes_nothing(status: PaymentStatus) -> None:
    payment = replace(PROCESSING, status=status)
    assert payment is payment.after(Unknown())
