"""What a payment is taken from, and how much of it may be seen.

The form rules (Luhn, ABA, IBAN) are checked where a request is read, in edge/sources.py:
inside, a source is already right.
"""

from dataclasses import dataclass
from typing import Any, Literal

from payorder.domain.secret import Secret

CARD_STARS = "*" * 12
BANK_ACCOUNT_STARS = "*" * 9


@dataclass(frozen=True, slots=True)
class MaskedSource:
    """What is stored and shown of a source. Fields of the other kind, and fields not sent, are None.

    `brand` is for receipts: how people call the card, "Visa", or None if its number belongs to no brand that is known.
    """

    object: Literal["card", "bank_account"]
    name: str
    number: str
    exp_month: int | None = None
    exp_year: int | None = None
    address_country: str | None = None
    address_post_code: str | None = None
    sort_code: str | None = None
    routing_number: str | None = None
    account_type: str | None = None
    bank_name: str | None = None
    country: str | None = None
    brand: str | None = None

    def given(self) -> dict[str, Any]:
        """The fields that have a value, by name."""
        values = ((name, getattr(self, name)) for name in self.__slots__)
        return {name: value for name, value in values if value is not None}

    def shown(self) -> dict[str, Any]:
        """Those of them that answers and events have: all but the brand."""
        return {name: value for name, value in self.given().items() if name != "brand"}


@dataclass(frozen=True, slots=True)
class Address:
    """A card holder's address; `country` is ISO 3166-1 alpha-2 as it was sent."""

    line1: str | None = None
    line2: str | None = None
    city: str | None = None
    country: str | None = None
    post_code: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """A payment card: `number` is the PAN, 13 to 19 digits; `exp_year` has four digits."""

    name: str
    number: Secret
    cvc: Secret | None
    exp_month: int
    exp_year: int
    address: Address
    brand: str | None = None

    def identity(self) -> Secret:
        """What makes it this card and no other, whatever else is sent with it."""
        return Secret(f"card {self.number.reveal()}")

    def masked(self) -> MaskedSource:
        return MaskedSource(
            object="card",
            name=self.name,
            number=CARD_STARS + self.number.reveal()[-4:],
            exp_month=self.exp_month,
            exp_year=self.exp_year,
            address_country=self.address.country,
            address_post_code=self.address.post_code,
            brand=self.brand,
        )


@dataclass(frozen=True, slots=True)
class BankAccount:
    """A bank account: `number` is 4 to 17 digits or an IBAN. Leading zeros are data."""

    name: str
    number: Secret
    sort_code: str | None
    routing_number: str | None
    account_type: Literal["individual", "company"]
    bank_name: str
    country: str

    def identity(self) -> Secret:
        """The number alone: what need not be sent would make many accounts of one. Two of one number are rare."""
        return Secret(f"bank_account {self.number.reveal()}")

    def masked(self) -> MaskedSource:
        return MaskedSource(
            object="bank_account",
            name=self.name,
            number=BANK_ACCOUNT_STARS + self.number.reveal()[-4:],
            sort_code=self.sort_code,
            routing_number=self.routing_number,
            account_type=self.account_type,
            bank_name=self.bank_name,
            country=self.country,
        )


Source = Card | BankAccount
