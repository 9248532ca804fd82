"""Money is whole minor units: what is read, what is refused, what is printed."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payorder.domain.errors import BrokenRule
from payorder.domain.money import Currency, Money, parse_money

GBP = Currency("GBP", 2)
JPY = Currency("JPY", 0)
KWD = Currency("KWD", 3)
CLF = Currency("CLF", 4)

READ = [
    ("49.99", GBP, 4999),
    ("100.50", GBP, 10050),
    ("0.01", GBP, 1),
    ("49.9", GBP, 4990),
    ("49", GBP, 4900),
    ("100", JPY, 100),
    ("1.234", KWD, 1234),
    ("1.2", KWD, 1200),
    ("0.0001", CLF, 1),
    ("999999999999", JPY, 999999999999),
    ("999999999999.9999", CLF, 9999999999999999),  # above 2**53: a float would lose the last digit
]

PRINTED = [
    (Money(4999, GBP), "49.99"),
    (Money(4990, GBP), "49.90"),
    (Money(4900, GBP), "49.00"),
    (Money(1, GBP), "0.01"),
    (Money(100, JPY), "100"),
    (Money(1, JPY), "1"),
    (Money(1234, KWD), "1.234"),
    (Money(5, KWD), "0.005"),
    (Money(1, CLF), "0.0001"),
    (Money(9999999999999999, CLF), "999999999999.9999"),
]

TOO_MANY_DECIMALS = [
    ("49.990", GBP),
    ("49.999", GBP),
    ("0.001", GBP),
    ("0.000", GBP),
    ("10.2", JPY),
    ("10.0", JPY),
    ("1.2345", KWD),
    ("1.2340", KWD),
]

NOT_POSITIVE = [("0", GBP), ("0.0", GBP), ("0.00", GBP), ("0", JPY), ("0.000", KWD), ("0.0000", CLF)]

INVALID_FORMAT = [
    "",
    "-1",
    "+1",
    "-0.01",
    "1e2",
    "1E2",
    "NaN",
    "Infinity",
    "0x10",
    " 49.99",
    "49.99 ",
    "49.99\n",
    "\n49.99",
    "4 9.99",
    "1_000",
    "1,000.00",
    "49,99",
    "£49.99",
    "49.99 GBP",
    "00049.99",
    "00",
    "01",
    ".5",
    "5.",
    ".",
    "1.2.3",
    "1.23456",
    "1000000000000",
    "1000000000000.00",
    "\uff14\uff19.\uff19\uff19",  # full-width digits
    "\u0664\u0669",  # Arabic-Indic digits
    "4\u0669.99",
    "\u00b2",  # superscript two
    "49\uff0e99",  # full-width full stop
    "49.99\x00",
]

# The pattern of the contract, once more and on its own, so that both have to be wrong to agree.
CONTRACT = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,4})?")

currencies = st.builds(Currency, code=st.just("XYZ"), minor_digits=st.integers(0, 4))
amounts = st.one_of(
    st.text(),
    st.text(alphabet="0123456789.+-eE_, \n\u0660\uff10"),
    st.from_regex(CONTRACT, fullmatch=True),
)


@pytest.mark.parametrize(("text", "currency", "amount_minor"), READ)
def test_an_amount_is_read_exactly(text: str, currency: Currency, amount_minor: int) -> None:
    assert Money(amount_minor, currency) == parse_money(text, currency)


@pytest.mark.parametrize(("money", "text"), PRINTED)
def test_an_amount_is_printed_with_exactly_the_currencys_digits(money: Money, text: str) -> None:
    assert text == str(money)


@pytest.mark.parametrize(("text", "currency"), TOO_MANY_DECIMALS)
def test_an_amount_with_more_decimals_than_the_currency_is_refused_not_rounded(text: str, currency: Currency) -> None:
    assert "too_many_decimals" == code_of_refusal(text, currency)


@pytest.mark.parametrize(("text", "currency"), NOT_POSITIVE)
def test_nothing_is_not_an_amount(text: str, currency: Currency) -> None:
    assert "not_positive" == code_of_refusal(text, currency)


@pytest.mark.parametrize("text", INVALID_FORMAT)
@pytest.mark.parametrize("currency", [GBP, JPY, KWD, CLF], ids=lambda currency: currency.code)
def test_what_is_not_a_plain_decimal_number_is_refused(text: str, currency: Currency) -> None:
    assert "invalid_format" == code_of_refusal(text, currency)


@pytest.mark.parametrize("text", ["49.999", "1e2", "0"])
def test_a_refusal_does_not_repeat_the_amount(text: str) -> None:
    with pytest.raises(BrokenRule) as refusal:
        parse_money(text, JPY)
    assert text not in refusal.value.message
    assert text not in str(refusal.value)


@given(currency=currencies, data=st.data())
def test_what_is_printed_is_read_again(currency: Currency, data: st.DataObject) -> None:
    most = 10 ** (12 + currency.minor_digits) - 1
    money = Money(data.draw(st.integers(1, most)), currency)
    assert money == parse_money(str(money), currency)


@given(currency=currencies, text=amounts)
def test_an_amount_is_read_exactly_or_refused(currency: Currency, text: str) -> None:
    decimals = len(text.partition(".")[2])
    if CONTRACT.fullmatch(text) is None:
        assert "invalid_format" == code_of_refusal(text, currency)
    elif decimals > currency.minor_digits:
        assert "too_many_decimals" == code_of_refusal(text, currency)
    elif Decimal(text) == 0:
        assert "not_positive" == code_of_refusal(text, currency)
    else:
        money = parse_money(text, currency)
        assert int is type(money.amount_minor)
        assert Decimal(text).scaleb(currency.minor_digits) == money.amount_minor


def code_of_refusal(text: str, currency: Currency) -> str:
    with pytest.raises(BrokenRule) as refusal:
        parse_money(text, currency)
    return refusal.value.code
