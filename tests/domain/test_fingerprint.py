"""The fingerprint of a source: the same for the same card, whatever else is sent, and of no use without its key."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from payorder.domain.fingerprint import SourceFingerprints
from payorder.domain.secret import Secret
from payorder.domain.source import Address, BankAccount, Card

NUMBER = "4242424242424242"
CARD = Card("J. Doe", Secret(NUMBER), Secret("123"), 12, 2025, Address())
ACCOUNT = BankAccount("J. Doe", Secret("00012345"), "000123", None, "individual", "Starling Bank", "gb")
IBAN = replace(ACCOUNT, number=Secret("GB82WEST12345698765432"))
OURS = SourceFingerprints(Secret("k" * 32))


@pytest.mark.parametrize(
    "same",
    [
        replace(CARD, cvc=Secret("999")),
        replace(CARD, cvc=None),
        replace(CARD, name="Somebody Else", exp_month=1, exp_year=2031, address=Address(country="us")),
    ],
    ids=["another CVC", "no CVC", "another name, date and address"],
)
def test_a_card_is_known_by_its_number_alone(same: Card) -> None:
    assert OURS.of(CARD) == OURS.of(same)


@pytest.mark.parametrize("account", [ACCOUNT, IBAN], ids=["number", "IBAN"])
@pytest.mark.parametrize(
    "changes",
    [
        {"sort_code": "108800"},
        {"sort_code": None},
        {"routing_number": "110000000"},
        {"name": "x", "bank_name": "y", "country": "us", "account_type": "company"},
    ],
    ids=str,
)
def test_an_account_is_known_by_its_number_alone(account: BankAccount, changes: dict[str, Any]) -> None:
    """What need not be sent would make of one account as many as one likes."""
    assert OURS.of(account) == OURS.of(replace(account, **changes))


def test_another_number_or_kind_is_another() -> None:
    others = [replace(CARD, number=Secret("4000000000000002")), replace(ACCOUNT, number=Secret(NUMBER)), ACCOUNT, IBAN]
    assert len({OURS.of(each) for each in (CARD, *others)}) == 5


def test_without_the_key_nobody_can_make_it() -> None:
    assert OURS.of(CARD) != SourceFingerprints(Secret("l" * 32)).of(CARD)
    texts = [prefix + NUMBER for prefix in ("", "card ", "card")]
    plain = {getattr(hashlib, name)(text.encode()).digest() for name in ("md5", "sha1", "sha256") for text in texts}
    assert not [digest for digest in plain if digest.startswith(OURS.of(CARD))]
    assert 16 == len(OURS.of(CARD))
