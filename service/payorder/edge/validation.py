"""The rules that the contract itself states (buf.validate), and one it cannot: no card number where none belongs."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from protovalidate import Validator, Violation
from pydantic_core import PydanticCustomError
from pydantic_extra_types.payment import PaymentCardNumber

from payorder.domain.errors import FieldFault, InvalidFields, MalformedRequest

# Rule ids of buf.validate, as codes and texts of ours: theirs quote patterns, and may one day quote values.
RULES: Mapping[str, tuple[str, str]] = {
    "required": ("required", "is required"),
    "string.pattern": ("invalid_format", "does not have the documented form"),
    "string.max_len": ("too_long", "is too long"),
    "string.max_bytes": ("too_long", "is too long"),
    "string.in": ("not_supported", "is not one of the documented values"),
    "int32.gte_lte": ("out_of_range", "is outside the documented range"),
    "map.max_pairs": ("too_many", "has too many entries"),
    "repeated.max_items": ("too_many", "has too many entries"),
}
_ID_RULES = frozenset({"string.uuid", "string.uuid_empty"})
_ID_FIELDS = frozenset({"orderId", "paymentId", "entryId", "endpointId", "deliveryId", "by"})

# In these a run of digits is either meant or made by us.
_NOT_SEARCHED = frozenset(
    {"number", "cvc", "order_id", "payment_id", "entry_id", "endpoint_id", "delivery_id", "page_token"}
)
# Ids of other systems stand in keys and texts, and one in a few hundred has such digits by chance: UUIDs, and
# hexadecimal words that are too long, or have too many letters, to be a card number with something stuck to it.
_ID = re.compile(
    r"(?<![0-9A-Za-z])(?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?=(?:[0-9]*[a-f]){2})[0-9a-f]{16,})(?![0-9A-Za-z])",
    re.IGNORECASE,
)
# Not the colon: it stands in times, which are digits as well. The plus is what forms make of a space, and Envoy leaves.
_DIGIT_GROUPS = re.compile("[0-9]+(?:[ +./,_\\N{NO-BREAK SPACE}\\N{EN DASH}-]{1,3}[0-9]+)*")
_CARD_NUMBER_LENGTHS = range(13, 20)
# Major industry identifiers of banks, travel and merchandising (ISO/IEC 7812), and Mastercard's second series. A date
# that begins with its year has none of them.
_CARD_NUMBER_BEGINS = re.compile("[3-6]|22[2-9]|2[3-6]|27[01]|2720")

_validator = Validator()


def validate(request: Message) -> None:
    """Raises MalformedRequest for an id that is none, InvalidFields for everything else that breaks a rule."""
    violations = _validator.collect_violations(request)
    if violations:
        raise _refusal(violations)
    faults = [
        FieldFault(path, "card_number_not_allowed", "must not hold a card number") for path in _card_numbers(request)
    ]
    if faults:
        raise InvalidFields(faults)


def _refusal(violations: list[Violation]) -> InvalidFields | MalformedRequest:
    faults: dict[str, FieldFault] = {}
    for violation in violations:
        rule = violation.proto.rule_id or ""
        path = _path(violation)
        if rule in _ID_RULES or (rule == "required" and path in _ID_FIELDS):
            return MalformedRequest("The id is not a UUID.")
        fault = _fault(rule, path)
        faults.setdefault(fault.field, fault)
    return InvalidFields(list(faults.values()))


def _fault(rule: str, path: str) -> FieldFault:
    # Rules on a whole message name their field behind a dot: "required.exp_year".
    if rule.startswith("required."):
        name = _camel(rule.removeprefix("required."))
        return FieldFault(f"{path}.{name}" if path else name, *RULES["required"])
    return FieldFault(path, *RULES[rule])


def _path(violation: Violation) -> str:
    # Keys of maps are the caller's text, so they are left out. Paths start at the REST body, which is `payment`.
    field = violation.proto.field
    names = [element.field_name or "" for element in field.elements] if field else []
    return ".".join(_camel(name) for name in (names[1:] if names[:1] == ["payment"] and names[1:] else names))


def _card_numbers(message: Message, parent: str = "") -> Iterator[str]:
    """Paths of the fields that hold what could be a card number."""
    for field, value in message.ListFields():
        path = f"{parent}.{_camel(field.name)}" if parent else _camel(field.name)
        if field.name in _NOT_SEARCHED:
            continue
        if field.name == "payment":
            yield from _card_numbers(value)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            yield from _card_numbers(value, path)
        elif any(looks_like_a_card_number(text) for text in _texts(field, value)):
            yield path


def _texts(field: FieldDescriptor, value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value.keys()
        yield from value.values()


def looks_like_a_card_number(text: str) -> bool:
    """Whether neighbouring groups of digits, with little between them, make 13 to 19 that a card could have."""
    digits_min = _CARD_NUMBER_LENGTHS.start
    if len(text) < digits_min or sum(map(text.count, "0123456789")) < digits_min:
        return False
    runs = _DIGIT_GROUPS.finditer(_ID.sub(" : ", text))
    return any(_could_be_a_card(digits) for run in runs for digits in _neighbours(run[0]))


def _could_be_a_card(digits: str) -> bool:
    has_form = len(digits) in _CARD_NUMBER_LENGTHS and _CARD_NUMBER_BEGINS.match(digits) is not None
    return has_form and _passes_luhn(digits)


def _neighbours(run: str) -> Iterator[str]:
    """Every row of neighbouring groups, as one number, until it is too long for a card."""
    groups = re.findall("[0-9]+", run)
    for start in range(len(groups)):
        digits = ""
        for group in islice(groups, start, None):
            digits += group
            if len(digits) >= _CARD_NUMBER_LENGTHS.stop:
                break
            yield digits


def _passes_luhn(digits: str) -> bool:
    try:
        PaymentCardNumber.validate_luhn_check_digit(digits)
    except PydanticCustomError:
        return False
    return True


@cache
def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
