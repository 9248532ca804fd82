"""Payment sources: the form rules that need more than a pattern, from message to domain and back, masked."""

from collections.abc import Callable
from typing import Any, Literal, cast

from iso3166 import countries_by_alpha2
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_extra_types.iban import IBAN
from pydantic_extra_types.payment import PaymentCardBrand, PaymentCardNumber
from pydantic_extra_types.routing_number import ABARoutingNumber

from payments.v1.source_pb2 import MaskedSource as MaskedSourceMessage
from payments.v1.source_pb2 import PaymentSource
from payorder.domain.errors import FieldFault, InvalidFields
from payorder.domain.secret import Secret
from payorder.domain.source import Address, BankAccount, Card, MaskedSource, Source

_CARD_ONLY = (
    "cvc",
    "exp_month",
    "exp_year",
    "address_line1",
    "address_line2",
    "address_city",
    "address_country",
    "address_post_code",
)  # fmt: skip - grouped by meaning
_BANK_ACCOUNT_ONLY = ("sort_code", "routing_number", "account_type", "bank_name", "country")
_CARD_DIGITS_MIN = 13
_ACCOUNT_DIGITS_MAX = 17

_iban: TypeAdapter[IBAN] = TypeAdapter(IBAN)


def to_source(message: PaymentSource) -> Source:
    """The source of a request that has passed validation. Raises InvalidFields, one entry for each broken field."""
    faults = _faults_of_card(message) if message.object == "card" else _faults_of_bank_account(message)
    if faults:
        raise InvalidFields(faults)
    return _to_card(message) if message.object == "card" else _to_bank_account(message)


def to_masked_message(source: MaskedSource) -> MaskedSourceMessage:
    return MaskedSourceMessage(**source.shown())


def _faults_of_card(message: PaymentSource) -> list[FieldFault]:
    number, faults = message.number, _not_applicable(message, _BANK_ACCOUNT_ONLY, "a card")
    if not _is_card_number(number):
        faults.append(_fault("number", "invalid_number", "is not a card number"))
    elif message.HasField("cvc") and len(message.cvc) != _cvc_digits(number):
        faults.append(_fault("cvc", "invalid_cvc", "has three digits, for American Express four"))
    if message.HasField("address_country") and not _is_country(message.address_country):
        faults.append(_fault("addressCountry", "unknown_country", "is not an ISO 3166-1 alpha-2 code"))
    return faults


def _faults_of_bank_account(message: PaymentSource) -> list[FieldFault]:
    faults = _not_applicable(message, _CARD_ONLY, "a bank account")
    if not _is_account_number(message.number):
        faults.append(_fault("number", "invalid_number", "is neither 4 to 17 digits nor a valid IBAN"))
    if message.HasField("routing_number") and not _is_routing_number(message.routing_number):
        faults.append(_fault("routingNumber", "invalid_routing_number", "is not an ABA routing number"))
    if not _is_country(message.country):
        faults.append(_fault("country", "unknown_country", "is not an ISO 3166-1 alpha-2 code"))
    return faults


def _not_applicable(message: PaymentSource, names: tuple[str, ...], kind: str) -> list[FieldFault]:
    fields = message.DESCRIPTOR.fields_by_name
    sent = [fields[name].json_name for name in names if message.HasField(cast("Any", name))]
    return [_fault(name, "not_applicable", f"does not belong to {kind}") for name in sent]


def _is_card_number(number: str) -> bool:
    # Zeros alone pass the Luhn check and are no card.
    has_form = number.isdigit() and len(number) >= _CARD_DIGITS_MIN and bool(number.strip("0"))
    return has_form and _holds(PaymentCardNumber.validate_luhn_check_digit, number)


def _is_account_number(number: str) -> bool:
    if number.isdigit():
        return len(number) <= _ACCOUNT_DIGITS_MAX and bool(number.strip("0"))
    return _holds(_iban.validate_python, number)


def _is_routing_number(number: str) -> bool:
    # Nine zeros pass the checksum and are no bank.
    return bool(number.strip("0")) and _holds(ABARoutingNumber, number)


def _is_country(code: str) -> bool:
    return code.upper() in countries_by_alpha2


def _cvc_digits(number: str) -> int:
    return 4 if _brand_of(number) is PaymentCardBrand.amex else 3


def _brand_of(number: str) -> PaymentCardBrand:
    # A number whose length is not its brand's is of no brand; whether there is such a card is the processor's answer.
    try:
        return PaymentCardNumber(number).brand
    except PydanticCustomError:
        return PaymentCardBrand.other


def _holds(rule: Callable[[str], object], value: str) -> bool:
    """Whether the library's rule takes the value. What it raises quotes the value and goes no further."""
    try:
        rule(value)
    except (PydanticCustomError, ValidationError):
        return False
    return True


def _to_card(message: PaymentSource) -> Card:
    brand = _brand_of(message.number)
    return Card(
        name=message.name,
        number=Secret(message.number),
        cvc=Secret(message.cvc) if message.HasField("cvc") else None,
        exp_month=message.exp_month,
        exp_year=message.exp_year,
        address=Address(
            line1=message.address_line1 if message.HasField("address_line1") else None,
            line2=message.address_line2 if message.HasField("address_line2") else None,
            city=message.address_city if message.HasField("address_city") else None,
            country=message.address_country if message.HasField("address_country") else None,
            post_code=message.address_post_code if message.HasField("address_post_code") else None,
        ),
        brand=None if brand is PaymentCardBrand.other else brand.value,
    )


def _to_bank_account(message: PaymentSource) -> BankAccount:
    return BankAccount(
        name=message.name,
        number=Secret(message.number),
        sort_code=message.sort_code if message.HasField("sort_code") else None,
        routing_number=message.routing_number if message.HasField("routing_number") else None,
        account_type=cast("Literal['individual', 'company']", message.account_type),
        bank_name=message.bank_name,
        country=message.country,
    )


def _fault(name: str, code: str, message: str) -> FieldFault:
    return FieldFault(f"source.{name}", code, message)
