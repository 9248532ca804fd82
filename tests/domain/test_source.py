"""What may be seen of a source: at most the last four digits, and never what only proves possession."""

from dataclasses import fields
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payorder.domain.secret import Secret
from payorder.domain.source import Address, BankAccount, Card, MaskedSource

ASCII_DIGITS = "0123456789"


def test_a_masked_card_is_what_the_contract_shows() -> None:
    card = Card(
        name="J. Doe",
        number=Secret("4242424242424242"),
        cvc=Secret("123"),
        exp_month=12,
        exp_year=2025,
        address=Address(line1="123 Fake Street", line2="4th Floor", city="London", country="gb", post_code="N12 9XX"),
    )
    masked = MaskedSource(
        object="card",
        name="J. Doe",
        number="************4242",
        exp_month=12,
        exp_year=2025,
        address_country="gb",
        address_post_code="N12 9XX",
    )
    assert masked == card.masked()


def test_a_masked_bank_account_is_what_the_contract_shows() -> None:
    account = BankAccount(
        name="J. Doe",
        number=Secret("00012345"),
        sort_code="000123",
        routing_number=None,
        account_type="individual",
        bank_name="Starling Bank",
        country="gb",
    )
    masked = MaskedSource(
        object="bank_account",
        name="J. Doe",
        number="*********2345",
        sort_code="000123",
        account_type="individual",
        bank_name="Starling Bank",
        country="gb",
    )
    assert masked == account.masked()


def test_a_masked_source_has_no_place_for_a_cvc_or_the_lines_and_city_of_an_address() -> None:
    allowed = {
        *("object", "name", "number", "exp_month", "exp_year", "address_country", "address_post_code"),
        *("sort_code", "routing_number", "account_type", "bank_name", "country", "brand"),
    }
    assert allowed == {field.name for field in fields(MaskedSource)}


@given(number=st.text(ASCII_DIGITS, min_size=13, max_size=19), cvc=st.none() | st.text(ASCII_DIGITS, min_size=3))
def test_a_masked_card_number_is_twelve_stars_and_the_last_four_digits(number: str, cvc: str | None) -> None:
    assert "*" * 12 + number[-4:] == card_of(number, cvc).masked().number


@given(number=st.text(ASCII_DIGITS, min_size=4, max_size=17))
def test_a_masked_account_number_is_nine_stars_and_the_last_four_digits(number: str) -> None:
    assert "*" * 9 + number[-4:] == bank_account_of(number).masked().number


@pytest.mark.parametrize(
    ("iban", "masked"),
    [
        ("GB29NWBK60161331926819", "*********6819"),
        ("FR1420041010050500013M02606", "*********2606"),
        ("NO9386011117947", "*********7947"),
    ],
)
def test_an_iban_is_masked_as_any_account_number(iban: str, masked: str) -> None:
    assert masked == bank_account_of(iban).masked().number


@given(number=st.text(ASCII_DIGITS, min_size=13, max_size=19))
def test_no_more_than_four_digits_of_a_card_can_be_seen(number: str) -> None:
    assert at_most_the_last_four_are_seen(number, card_of(number, "CVC").masked())


@given(number=st.text(ASCII_DIGITS, min_size=5, max_size=17))
def test_no_more_than_four_digits_of_an_account_can_be_seen(number: str) -> None:
    assert at_most_the_last_four_are_seen(number, bank_account_of(number).masked())


def test_nothing_of_a_cvc_or_of_the_lines_and_city_of_an_address_can_be_seen() -> None:
    seen = repr(card_of("4242424242424242", "CVC").masked())
    assert [] == [hidden for hidden in ("CVC", "LINE ONE", "LINE TWO", "CITY") if hidden in seen]


@pytest.mark.parametrize("account_type", ["individual", "company"])
@pytest.mark.parametrize(("sort_code", "routing_number"), [("000123", None), (None, "000000019"), (None, None)])
def test_leading_zeros_of_a_bank_are_kept(
    account_type: Literal["individual", "company"], sort_code: str | None, routing_number: str | None
) -> None:
    masked = bank_account_of("0000", sort_code, routing_number, account_type).masked()
    assert ("*********0000", sort_code, routing_number) == (masked.number, masked.sort_code, masked.routing_number)
    assert account_type == masked.account_type


def at_most_the_last_four_are_seen(number: str, masked: MaskedSource) -> bool:
    digits_seen = "".join(character for character in masked.number if character.isdigit())
    return number[-4:] == digits_seen and number[-5:] not in repr(masked)


def card_of(number: str, cvc: str | None) -> Card:
    """A card whose other fields hold no digits that a number could be mistaken for."""
    return Card(
        name="NAME",
        number=Secret(number),
        cvc=None if cvc is None else Secret(cvc),
        exp_month=1,
        exp_year=2030,
        address=Address(line1="LINE ONE", line2="LINE TWO", city="CITY", country="gb", post_code="POST CODE"),
    )


def bank_account_of(
    number: str,
    sort_code: str | None = None,
    routing_number: str | None = None,
    account_type: Literal["individual", "company"] = "company",
) -> BankAccount:
    return BankAccount(
        name="NAME",
        number=Secret(number),
        sort_code=sort_code,
        routing_number=routing_number,
        account_type=account_type,
        bank_name="BANK",
        country="gb",
    )
