"""What a printed receipt says, line by line; the locale decides how amounts and times are written."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from babel import Locale, negotiate_locale
from babel.dates import format_datetime
from babel.numbers import NumberPattern, format_currency, get_currency_symbol, parse_pattern

from payorder.domain.money import Currency
from payorder.domain.receipt import SignedReceipt

# Each that is used stays in memory with about a megabyte, so they are counted; and paper.py can print all of them.
LOCALES = (
    *("en_GB", "en_US", "en_AU", "en_CA", "en_IE", "en_IN", "en_NZ", "en_ZA", "en"),
    *("de_DE", "de_AT", "de_CH", "de", "fr_FR", "fr_BE", "fr_CA", "fr_CH", "fr", "es_ES", "es_MX", "es"),
    *("it_IT", "it_CH", "it", "pt_BR", "pt_PT", "pt", "nl_NL", "nl_BE", "nl"),
    *("da_DK", "da", "fi_FI", "fi", "nb_NO", "nb", "sv_SE", "sv"),
    *("ja_JP", "ja", "ko_KR", "ko", "zh_CN", "zh_TW", "zh"),
)  # fmt: skip - by language
_DEFAULT = "en_GB"


@dataclass(frozen=True, slots=True)
class Line:
    """`name` is the same for every receipt; `text` may hold anything that somebody has sent.

    A seller's alone has line feeds, each of which begins a line: texts of callers have no control characters.
    """

    name: str
    text: str


def lines_of(signed: SignedReceipt, locales: Sequence[str], can_show: Callable[[str], bool]) -> list[Line]:
    """`can_show`: whether there is a font for a currency's symbol; its code stands in for one without."""
    return list(_lines(signed, _locale_of(locales), can_show))


def _lines(signed: SignedReceipt, locale: Locale, can_show: Callable[[str], bool]) -> Iterator[Line]:
    receipt, currency = signed.receipt, signed.receipt.amount.currency
    pattern = _pattern_of(currency, locale, can_show)
    yield Line("Amount", _amount(receipt.amount.amount_minor, currency, pattern, locale))
    yield Line("Refunded", _amount(receipt.refunded_minor, currency, pattern, locale))
    yield Line("Currency", currency.code)
    yield Line("Paid", format_datetime(receipt.generated_at, "long", locale=locale))
    if signed.seller is not None:
        yield Line("Paid to", signed.seller)
    yield Line("Paid with", receipt.payment_method)
    yield Line("Paid by", receipt.payer)
    if receipt.description is not None:
        yield Line("For", receipt.description)
    yield Line("Order", receipt.order_id)
    yield Line("Payment", receipt.payment_id)
    yield Line("Receipt", receipt.id)


def _pattern_of(currency: Currency, locale: Locale, can_show: Callable[[str], bool]) -> NumberPattern:
    """With exactly the currency's digits: those of CLDR are for prices, and would round some currencies of ISO 4217."""
    symbol, written = get_currency_symbol(currency.code, locale), locale.currency_formats["standard"].pattern
    if symbol == currency.code or not can_show(symbol):
        # Twice it is the code, which does not stand close to a number.
        written = re.sub("¤¤(?=[#0])", "¤¤\N{NO-BREAK SPACE}", written.replace("¤", "¤¤"))
    pattern = parse_pattern(written)
    pattern.frac_prec = (currency.minor_digits, currency.minor_digits)
    return pattern


def _amount(amount_minor: int, currency: Currency, pattern: NumberPattern, locale: Locale) -> str:
    amount = Decimal(amount_minor).scaleb(-currency.minor_digits)
    return format_currency(amount, currency.code, pattern, locale, currency_digits=False)


def _locale_of(wanted: Sequence[str]) -> Locale:
    found = negotiate_locale([tag.replace("-", "_") for tag in wanted], LOCALES)
    return Locale.parse(found or _DEFAULT)
