"""Money: integer minor units of one currency; never a float, never rounded."""

import re
from dataclasses import dataclass

from payorder.domain.errors import BrokenRule

# ASCII digits only: Decimal and int would take full-width digits, signs, underscores and exponents.
_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,11})(?:\.([0-9]{1,4}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Currency:
    """An ISO 4217 currency: `code` in upper case, `minor_digits` its exponent (GBP 2, JPY 0, BHD 3)."""

    code: str
    minor_digits: int

    def decimal(self, amount_minor: int) -> str:
        """The decimal string with exactly this currency's digits: "49.99", "100", "1.234"."""
        if self.minor_digits == 0:
            return str(amount_minor)
        whole, minor = divmod(amount_minor, 10**self.minor_digits)
        return f"{whole}.{minor:0{self.minor_digits}}"


@dataclass(frozen=True, slots=True)
class Money:
    """An amount greater than zero in minor units: 4999 of GBP is £49.99."""

    amount_minor: int
    currency: Currency

    def __str__(self) -> str:
        return self.currency.decimal(self.amount_minor)


def parse_money(text: str, currency: Currency) -> Money:
    """Read a decimal string in major units. Raises BrokenRule: invalid_format, too_many_decimals, not_positive."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise BrokenRule("invalid_format", "must be a decimal number such as 49.99")
    whole, decimals = match[1], match[2] or ""
    if len(decimals) > currency.minor_digits:
        raise BrokenRule("too_many_decimals", "has more decimals than the currency")
    amount_minor = int(whole + decimals.ljust(currency.minor_digits, "0"))
    if amount_minor == 0:
        raise BrokenRule("not_positive", "must be greater than zero")
    return Money(amount_minor, currency)
