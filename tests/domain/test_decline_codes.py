"""What callers are told of a decline says nothing of whether a card is there, lost or stolen."""

import pytest

from payorder.adapters.processors.sandbox import DECLINED_ACCOUNTS, DECLINED_CARDS
from payorder.domain.decline_codes import TOLD, as_told
from support.records import BANK_ACCOUNT, CARD


@pytest.mark.parametrize("code", ["insufficient_funds", "expired_card", "incorrect_cvc", "processing_error"])
def test_what_a_customer_can_mend_is_told(code: str) -> None:
    assert code == as_told(code, CARD)
    assert code == as_told(code, BANK_ACCOUNT)


@pytest.mark.parametrize(
    "code",
    [
        *("lost_card", "stolen_card", "fraudulent", "pickup_card", "restricted_card", "do_not_honor", "no_account"),
        *("incorrect_number", "card_velocity_exceeded", "authentication_required", "a_code_of_next_year", ""),
    ],
)
def test_all_else_is_one_code(code: str) -> None:
    assert "card_declined" == as_told(code, CARD)
    assert "bank_account_declined" == as_told(code, BANK_ACCOUNT)


def test_of_all_that_the_sandbox_knows_six_codes_are_told() -> None:
    cards = {as_told(code, CARD) for code in DECLINED_CARDS}
    accounts = {as_told(code, BANK_ACCOUNT) for code in DECLINED_ACCOUNTS}
    assert TOLD | {"card_declined", "bank_account_declined"} >= cards | accounts
