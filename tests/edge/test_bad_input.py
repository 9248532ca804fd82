"""Bad input gets its documented answer, changes nothing, and is not repeated.

Tables of what is sent and what is answered. Each case is one of a kind; the rules, not the examples, are what is meant.
"""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from payments.v1.order_service_pb2 import CreateOrderRequest
from payments.v1.payment_pb2 import PaymentDetails
from payments.v1.source_pb2 import PaymentSource
from support.doors import Answer, Body, answer_of
from support.orders import Orders
from support.requests import BANK_ACCOUNT, CARD, ORDER, bank_payment, payment, some_id, varied
from support.snapshot import Watch
from support.stack import Stack

PAN, AMEX = "4444333322221111", "378282246310005"
FORMAT, REQUIRED, LONG, RANGE = "invalid_format", "required", "too_long", "out_of_range"
FULL_WIDTH = "\uff14\uff19.\uff19\uff19"


@pytest.fixture(scope="module")
async def watch(stack: Stack) -> Watch:
    watching = Watch(stack)
    await watching.changes()
    return watching


@pytest.fixture(scope="module")
async def order(stack: Stack, watch: Watch) -> str:
    """One order for all: whatever is refused leaves it as it is."""
    placed = await Orders(stack).placed()
    await watch.changes()
    return placed


@dataclass(frozen=True, slots=True)
class Case:
    """`body` is that of the REST request. `native` is the same through gRPC, where its messages can carry it."""

    says: str
    rpc: str
    body: Any
    http: int
    reason: str
    faults: Mapping[str, str]
    native: bool = True


def says(value: object) -> str:
    """A short name of a value for a test's id, without a card number in it."""
    text = ascii(value)[:24] if len(ascii(value)) <= 60 else f"{ascii(value)[:8]} of {len(ascii(value))}"
    return re.sub("[0-9]{6,}", lambda run: f"{len(run[0])} digits", text.replace("...", "nothing"))


def invalid(rpc: str, name: str, value: object, body: Body, faults: Mapping[str, str]) -> Case:
    return Case(f"{name} {says(value)}", rpc, body, 422, "INVALID_FIELDS", faults)


def amount(value: object, code: str, currency: str = "GBP") -> Case:
    body = varied(payment(), amount=value, currency=currency)
    return invalid("PayOrder", f"{currency} amount", value, body, {"amount": code})


def currency(value: object, code: str) -> Case:
    return invalid("PayOrder", "currency", value, varied(payment(), currency=value), {"currency": code})


def mismatch(amount: str, currency: str, reason: str) -> Case:
    field = "amount" if reason == "AMOUNT_MISMATCH" else "currency"
    body = payment(amount, currency)
    return Case(f"{amount} {currency}", "PayOrder", body, 422, reason, {field: reason.lower()})


def card(name: str, value: object, code: str, **others: object) -> Case:
    body = payment(**{name: value}, **others)
    return invalid("PayOrder", f"card {name}", value, body, {f"source.{name}": code})


def bank(name: str, value: object, code: str, **others: object) -> Case:
    body = bank_payment(**{name: value}, **others)
    return invalid("PayOrder", f"bank account {name}", value, body, {f"source.{name}": code})


def source(value: object, *required: str) -> Case:
    body = {"amount": "49.99", "currency": "GBP", "source": value}
    return invalid("PayOrder", "source", value, varied(body), dict.fromkeys(required, REQUIRED))


def placing(name: str, value: object, code: str, **others: object) -> Case:
    body = varied(ORDER, **{name: value}, **others)
    return invalid("CreateOrder", f"order's {name}", value, body, {name: code})


def total(value: str, currency: str, code: str) -> Case:
    body = varied(ORDER, totalAmount=value, currency=currency)
    return invalid("CreateOrder", f"total {currency}", value, body, {"totalAmount": code})


def wrong_type(rpc: str, name: str, value: object, body: Body) -> Case:
    return Case(f"{name} as {says(value)}", rpc, body, 400, "BAD_REQUEST", {}, native=False)


MONEY = (
    *(amount(value, "not_positive") for value in ("0", "0.00", "0.0")),
    *(amount(value, FORMAT) for value in ("-0", "-49.99", "+49.99", "4e1", "1E-2", "1e999999999", "0x31")),
    *(amount(value, FORMAT) for value in ("NaN", "sNaN", "Infinity", "-Infinity", "inf")),
    *(amount(value, FORMAT) for value in ("49,99", "1,000.00", "£49.99", "$49.99", "49.99 GBP", "49 99")),
    *(amount(value, FORMAT) for value in (" 49.99", "49.99 ", "49.99\n", "1_000", "49.99\u200b", "49..99")),
    *(amount(value, FORMAT) for value in (FULL_WIDTH, "\u0664\u0669.\u0669\u0669", "\u2460", "00049.99", ".5", "5.")),
    *(amount(value, FORMAT) for value in ("9" * 13, "9" * 10_000, "1.23456", "49.99" + "0" * 5_000, "-" * 3)),
    *(amount(value, REQUIRED) for value in ("", ..., None)),
    *(amount(value, "too_many_decimals") for value in ("49.990", "49.999", "49.9999", "0.005", "0.001")),
    *(amount(value, "too_many_decimals", "JPY") for value in ("100.50", "100.0", "10.2")),
    amount("1.2345", "too_many_decimals", "KWD"),
    *(mismatch(value, "GBP", "AMOUNT_MISMATCH") for value in ("49.98", "50.00", "49.9", "49", "24.99", "0.01")),
    *(mismatch(value, "GBP", "AMOUNT_MISMATCH") for value in ("99.98", "999999999999.99", "4999")),
    *(mismatch("49.99", code, "CURRENCY_MISMATCH") for code in ("EUR", "USD", "KWD")),
    mismatch("4999", "JPY", "CURRENCY_MISMATCH"),
    *(currency(value, FORMAT) for value in ("gbp", "GBp", "GBP ", " GBP", "GBPX", "GB", "G1P", "£", "GBP\n")),
    *(currency(value, FORMAT) for value in ("\uff27\uff22\uff30", "\u0413BP", "826")),
    *(currency(value, REQUIRED) for value in ("", ..., None)),
    *(currency(value, "unknown_currency") for value in ("XXX", "XTS", "XAU", "XAG", "ZZZ", "HRK", "DEM", "BTC")),
    *(total(value, "GBP", "not_positive") for value in ("0", "0.00")),
    *(total(value, "GBP", FORMAT) for value in ("-1", "1e2", "NaN", "9" * 13, "1,000.00", FULL_WIDTH)),
    total("10.2", "JPY", "too_many_decimals"),
    total("1.2345", "KWD", "too_many_decimals"),
    total("0.001", "USD", "too_many_decimals"),
    total("49.999", "GBP", "too_many_decimals"),
    total("999999999999.9999", "GBP", "too_many_decimals"),
    placing("totalAmount", ..., REQUIRED),
    placing("totalAmount", None, REQUIRED),
    placing("currency", "gbp", FORMAT),
    placing("currency", "XXX", "unknown_currency"),
    placing("currency", ..., REQUIRED),
)

OTHERS_OF_CARD = {"sortCode": "000123", "routingNumber": "110000000", "accountType": "individual", "bankName": "B"}
OTHERS_OF_BANK = {"cvc": "123", "expMonth": 12, "expYear": 2025, "addressLine1": "1 Street", "addressLine2": "Floor"}

CARDS = (
    *(card("number", value, "invalid_number") for value in ("4242424242424241", "42424242424", "0" * 16, "4242")),
    *(card("number", value, "invalid_number") for value in ("4" * 19, "DE89370400440532013000", "424242424242")),
    *(card("number", value, FORMAT) for value in ("4" * 20, "42" * 5_000, "abcdefghijklmnop", "424242424242424O")),
    *(card("number", value, FORMAT) for value in ("4242 4242 4242 4242", "4242-4242-4242-4242", " 4242424242424242")),
    *(card("number", value, FORMAT) for value in ("4242424242424242\n", "4242424242424242.0", "+4242424242424242")),
    *(
        card("number", value, FORMAT)
        for value in ("".join(chr(0xFF10 + int(d)) for d in PAN), "4242\u200b424242424242")
    ),
    *(card("number", value, FORMAT) for value in ("************4242", "' OR 1=1 --", "${7*7}")),
    *(card("number", value, REQUIRED) for value in ("", ..., None)),
    *(card("cvc", value, FORMAT) for value in ("12", "12345", "abc", "12a", " 123", "", "\uff11\uff12\uff13", "-12")),
    card("cvc", "1234", "invalid_cvc"),
    card("cvc", "123", "invalid_cvc", number=AMEX),
    *(card("expMonth", value, RANGE) for value in (0, 13, -1, 2**31 - 1)),
    *(card("expMonth", value, REQUIRED) for value in (..., None)),
    *(card("expYear", value, RANGE) for value in (0, 25, 2023, 99999, -2025, 10_000)),
    *(card("expYear", value, REQUIRED) for value in (..., None)),
    *(card("name", value, FORMAT) for value in (" ", "\t", "J.\tDoe", "J. Doe\n")),
    *(card("name", value, REQUIRED) for value in ("", ..., None)),
    card("name", "J" * 201, LONG),
    card("name", "\U0001f600" * 201, LONG),
    *(card("object", value, "not_supported") for value in ("Card", "CARD", "wallet", "card ", "bank-account")),
    *(card(name, "x" * 201, LONG) for name in ("addressLine1", "addressLine2", "addressCity")),
    *(card(name, "a\x07b", FORMAT) for name in ("addressLine1", "addressLine2", "addressCity", "addressPostCode")),
    *(card("addressPostCode", value, LONG) for value in ("x" * 21, "x" * 1024)),
    *(card("addressCountry", value, "unknown_country") for value in ("uk", "UK", "zz", "XX", "eu")),
    *(card("addressCountry", value, FORMAT) for value in ("gbr", "", "g", "g1", "\u0261b", "GB\n")),
    *(card(name, value, "not_applicable") for name, value in OTHERS_OF_CARD.items()),
    card("country", "gb", "not_applicable"),
)

BANKS = (
    *(bank("number", value, "invalid_number") for value in ("1" * 18, "0" * 8, "0000")),
    *(bank("number", value, "invalid_number") for value in ("GB94BARC20201530093459", "DE8937040044053201300")),
    *(bank("number", value, "invalid_number") for value in ("ZZ89370400440532013000", "GB00NWBK60161331926819")),
    *(
        bank("number", value, FORMAT)
        for value in ("123", "1" * 35, "gb29nwbk60161331926819", "GB29 NWBK 6016 1331 9268 19")
    ),
    *(bank("number", value, FORMAT) for value in ("0001-2345", "ABCDEFGH", "*********2345", "00012345 ")),
    *(bank("number", value, REQUIRED) for value in ("", ..., None)),
    *(bank("sortCode", value, FORMAT) for value in ("20-00-00", "00012", "0001234", "abcdef", "", "\uff10" * 6)),
    *(bank("routingNumber", value, "invalid_routing_number") for value in ("112000025", "000000000", "123456789")),
    *(bank("routingNumber", value, FORMAT) for value in ("11000000", "1100000000", "11000000A", "")),
    *(bank("accountType", value, "not_supported") for value in ("personal", "Individual", "", "business")),
    *(bank("accountType", value, REQUIRED) for value in (..., None)),
    *(bank("bankName", value, FORMAT) for value in ("", " ", "Bank\tof")),
    bank("bankName", "B" * 201, LONG),
    bank("bankName", ..., REQUIRED),
    *(bank("country", value, "unknown_country") for value in ("uk", "zz")),
    *(bank("country", value, FORMAT) for value in ("gbr", "", "1b")),
    bank("country", ..., REQUIRED),
    *(bank(name, value, "not_applicable") for name, value in OTHERS_OF_BANK.items()),
    *(bank(name, "gb", "not_applicable") for name in ("addressCity", "addressCountry", "addressPostCode")),
)

NO_CARD = "card_number_not_allowed"
MISPLACED = (
    *(card(name, PAN, NO_CARD) for name in ("name", "addressLine1", "addressLine2", "addressCity", "addressPostCode")),
    card("name", "4444 3333 2222 1111", NO_CARD),
    card("addressLine1", "Card 4444-3333-2222-1111, London", NO_CARD),
    bank("name", PAN, NO_CARD),
    bank("bankName", f"Bank {AMEX}", NO_CARD),
    placing("petId", PAN, NO_CARD),
    placing("description", f"for {PAN}!", NO_CARD),
    placing("metadata", {"card": PAN}, NO_CARD),
    placing("metadata", {"card": "4444 3333 2222 1111"}, NO_CARD),
    placing("metadata", {PAN: "card"}, NO_CARD),
)

WHOLES = (
    *(source(value, "source") for value in (..., None)),
    source({}, "source.object", "source.name", "source.number"),
    source({"object": "card"}, "source.name", "source.number", "source.expMonth", "source.expYear"),
    source(
        {"object": "bank_account", "name": "J. Doe", "number": "00012345"},
        "source.accountType",
        "source.bankName",
        "source.country",
    ),
    source(varied(CARD, object=...), "source.object"),
    source(varied(BANK_ACCOUNT, object=None), "source.object"),
    Case(
        "nothing",
        "PayOrder",
        {},
        422,
        "INVALID_FIELDS",
        dict.fromkeys(("amount", "currency", "source"), REQUIRED),
        native=False,
    ),
    placing("petId", "", FORMAT),
    placing("petId", "p" * 65, FORMAT),
    placing("petId", "a pet", FORMAT),
    placing("petId", "../../etc/passwd", FORMAT),
    placing("description", "d" * 501, LONG),
    placing("description", "\u00e9" * 251, LONG),
    placing("description", "a\x07b", FORMAT),
    placing("metadata", {f"key{index}": "x" for index in range(17)}, "too_many"),
    *(placing("metadata", {key: "x"}, FORMAT) for key in ("", "a key", "k" * 41, "a/b")),
    placing("metadata", {"note": "v" * 101}, LONG),
    placing("metadata", {"note": "a\x1bb"}, FORMAT),
)

TYPES = (
    *(wrong_type("PayOrder", "amount", value, payment(value)) for value in (49.99, 4999, True, [], {}, ["49.99"])),
    *(wrong_type("PayOrder", "currency", value, payment(currency=value)) for value in (826, False, ["GBP"])),
    *(
        wrong_type("PayOrder", "source", value, payment() | {"source": value})
        for value in ("card", [], [CARD], 1, True)
    ),
    *(
        wrong_type("PayOrder", "number", value, payment(number=value))
        for value in (4242424242424242, [PAN], {"n": PAN})
    ),
    wrong_type("PayOrder", "cvc", 123, payment(cvc=123)),
    *(
        wrong_type("PayOrder", "expMonth", value, payment(expMonth=value))
        for value in (1.5, "twelve", True, [12], 2**31, "1.5", "")
    ),
    *(wrong_type("PayOrder", "expYear", value, payment(expYear=value)) for value in (2025.5, "2025a", {}, 10**30)),
    *(wrong_type("CreateOrder", "metadata", value, ORDER | {"metadata": value}) for value in ("{}", [], 1)),
    *(
        wrong_type("CreateOrder", "metadata", value, ORDER | {"metadata": value})
        for value in ({"a": 1}, {"a": None}, {"a": {}}, {"a": []})
    ),
    *(
        wrong_type("CreateOrder", "description", value, ORDER | {"description": value})
        for value in (1, ["x"], {"x": 1})
    ),
)

FIELDS = (*MONEY, *CARDS, *BANKS, *MISPLACED, *WHOLES, *TYPES)


@pytest.mark.parametrize("case", FIELDS, ids=lambda case: case.says)
async def test_a_bad_value_is_refused_by_name_and_changes_nothing(
    stack: Stack, watch: Watch, order: str, case: Case
) -> None:
    request = {"orderId": order, "payment": case.body} if case.rpc == "PayOrder" else case.body
    expected = (case.http, case.reason, case.faults)
    for door in (stack.rest, stack.grpc) if case.native else (stack.rest,):
        answer = await door.call(case.rpc, request, token=stack.token())
        assert expected == (answer.http, answer.reason, answer.faults)
        assert_not_repeated(answer, case.body)
    assert ([], []) == await watch.changes()


@pytest.mark.parametrize("text", ["J.\u202eDoe", "J.\x1bDoe", "J.\x07Doe", "\u200b"], ids=ascii)
@pytest.mark.parametrize("body", [payment(), bank_payment()], ids=["name", "bankName"])
async def test_a_name_holds_no_character_that_does_not_print(
    stack: Stack, orders: Orders, watch: Watch, body: Body, text: str
) -> None:
    name = "bankName" if "bankName" in body["source"] else "name"
    changed = body | {"source": body["source"] | {name: text}}
    request = {"orderId": await orders.placed(), "payment": changed}
    answers = [await door.call("PayOrder", request, token=stack.token()) for door in (stack.rest, stack.grpc)]
    await watch.changes()
    for answer in answers:
        assert ({f"source.{name}": FORMAT}, 422) == (answer.faults, answer.http)


def assert_not_repeated(answer: Answer, sent: Any) -> None:
    """Nothing of what is not in the documented request: neither whole, nor six digits of a number."""
    body = re.sub(r'("instance"|"paymentId"|request-id)\W*"[^"]*"', "", answer.text)
    own = {text for example in (CARD, BANK_ACCOUNT, ORDER) for text in texts(example)}
    for text in texts(sent):
        if len(text) > 3 and text not in own:
            assert text not in body
        for run in re.findall("[0-9]{6,}", re.sub("[ -]", "", text)):
            assert not any(run[start : start + 6] in body for start in range(len(run) - 5))


OUR_NAMES = {
    *CreateOrderRequest.DESCRIPTOR.fields_by_camelcase_name,
    *PaymentDetails.DESCRIPTOR.fields_by_camelcase_name,
    *PaymentSource.DESCRIPTOR.fields_by_camelcase_name,
}


def texts(value: Any) -> Iterator[str]:
    """Values, and names that are not ours."""
    if isinstance(value, Mapping):
        yield from (name for name in value if name not in OUR_NAMES)
        yield from (text for each in value.values() for text in texts(each))
    elif isinstance(value, list):
        yield from (text for item in value for text in texts(item))
    elif value is not None and not isinstance(value, bool):
        yield str(value)


# What is legal though it looks odd: sent to CreateOrder -> amount and currency answered.
GOOD_MONEY = (
    ("49.9", "GBP", "49.90"),
    ("49", "GBP", "49.00"),
    ("0.01", "GBP", "0.01"),
    ("999999999999.99", "GBP", "999999999999.99"),
    ("100", "JPY", "100"),
    ("1.234", "KWD", "1.234"),
    ("1.2", "BHD", "1.200"),
    ("0.0001", "CLF", "0.0001"),
)


@pytest.mark.parametrize(("sent", "code", "answered"), GOOD_MONEY)
async def test_good_money_is_printed_with_its_currency_s_digits(
    stack: Stack, watch: Watch, sent: str, code: str, answered: str
) -> None:
    for door in (stack.rest, stack.grpc):
        body = {"totalAmount": sent, "currency": code}
        answer = await door.call("CreateOrder", body, token=stack.token())
        assert ("OK", answered, code) == (answer.code, answer.body["totalAmount"], answer.body["currency"])
    assert 2 == len((await watch.changes())[0])


# Sources that are right: PayOrder answers "succeeded" or a decline, never a broken field.
GOOD_SOURCES = (
    payment(cvc=...),
    payment(number=AMEX, cvc="1234"),
    payment(number="6205500000000000004"),
    payment(number="36227206271667"),
    payment(addressCountry="GB"),
    payment(addressLine1=..., addressLine2=..., addressCity=..., addressCountry=..., addressPostCode=...),
    payment(expMonth="12"),
    payment(expMonth=12.0, expYear=2.025e3),
    payment(name="Zoë O'Doe-山田 <b>"),
    payment(addressLine2=None),
    bank_payment(number="DE89370400440532013000", sortCode=..., country="DE"),
    bank_payment(number="000123456789", sortCode=..., routingNumber="110000000", country="us"),
    bank_payment(accountType="company"),
)


@pytest.mark.parametrize(
    "body",
    GOOD_SOURCES,
    ids=lambda body: says({k: v for k, v in body["source"].items() if k not in CARD or CARD[k] != v}),
)
async def test_a_right_source_is_charged(stack: Stack, orders: Orders, watch: Watch, body: Body) -> None:
    for door in (stack.rest, stack.grpc):
        request = {"orderId": await orders.placed(), "payment": body}
        answer = await door.call("PayOrder", request, token=stack.token())
        assert ("OK", "succeeded") == (answer.code, answer.body.get("status"))
    await watch.changes()


GOOD_JSON = json.dumps(payment())
INNER = json.dumps(CARD)


def with_more(text: str) -> bytes:
    """The documented payment with something more at the top."""
    return (GOOD_JSON[:-1] + "," + text + "}").encode()


def with_source(text: str) -> bytes:
    return f'{{"amount":"49.99","currency":"GBP","source":{text}}}'.encode()


UNKNOWN, DUPLICATE, INNER_UNKNOWN = {"": "unknown_field"}, {"": "duplicate_field"}, {"source": "unknown_field"}
# Bodies of PayOrder as bytes -> status and codes of fields.
BODIES = (
    *(
        (f"a field {name} nobody may set", with_more(f'"{name}":"x"'), 422, UNKNOWN)
        for name in (
            "status",
            "paid",
            "capturedAmount",
            "owner",
            "userId",
            "id",
            "processorReference",
            "orderId",
            "order_id",
            "idempotencyKey",
            "paymentId",
            "callbackUrl",
            "cvc",
            "number",
            "__proto__",
            "@type",
        )
    ),
    *(
        (f"a field {name} beside the source's own", with_source(INNER[:-1] + f',"{name}":"1"}}'), 422, INNER_UNKNOWN)
        for name in ("exp_month", "Number", "NUMBER", "cvv", "number ", "last4", "token")
    ),
    ("a card number as a name", with_more(f'"{PAN}":1'), 422, UNKNOWN),
    ("a card number as a name in the source", with_source(f'{{"{PAN}":1}}'), 422, INNER_UNKNOWN),
    ("another case of a name", GOOD_JSON.replace('"amount"', '"Amount"').encode(), 422, UNKNOWN),
    ("a name in snake case", GOOD_JSON.replace("expMonth", "exp_month").encode(), 422, INNER_UNKNOWN),
    ("an unknown object", with_more('"more":{"deep":[1,{"a":null}]}'), 422, UNKNOWN),
    ("twice the same amount", with_more('"amount":"49.99"'), 422, DUPLICATE),
    ("another amount beside the first", with_more('"amount":"0.01"'), 422, DUPLICATE),
    ("two sources", with_more(f'"source":{INNER}'), 422, DUPLICATE),
    ("twice the number", with_source(INNER[:-1] + f',"number":"{PAN}"}}'), 422, {"source": "duplicate_field"}),
    ("unknown and twice", with_more('"x":1,"amount":"1"'), 422, UNKNOWN),
    *(
        (f"not JSON: {name}", body, 400, {})
        for name, body in {
            "nothing": b"",
            "white space": b" \r\n\t",
            "two objects": GOOD_JSON.encode() * 2,
            "text after it": GOOD_JSON.encode() + b"x",
            "a comma after it": GOOD_JSON.encode() + b",",
            "a NUL after it": GOOD_JSON.encode() + b"\0",
            "a line comment": b"// pay\n" + GOOD_JSON.encode(),
            "a comment": b"/* pay */" + GOOD_JSON.encode(),
            "a byte order mark": b"\xef\xbb\xbf" + GOOD_JSON.encode(),
            "UTF-16": GOOD_JSON.encode("utf-16"),
            "an array": b"[" + GOOD_JSON.encode() + b"]",
            "a string": json.dumps(GOOD_JSON).encode(),
            "null": b"null",
            "a number": b"1",
            "true": b"true",
            "single quotes": GOOD_JSON.replace('"', "'").encode(),
            "names without quotes": re.sub('"([a-zA-Z0-9]+)":', r"\1:", GOOD_JSON).encode(),
            "a comma at the end": GOOD_JSON[:-1].encode() + b",}",
            "a comma at the start": b"{," + GOOD_JSON[1:].encode(),
            "no comma": GOOD_JSON.replace(",", "", 1).encode(),
            "cut off": GOOD_JSON[:-1].encode(),
            "cut off in a string": GOOD_JSON[:30].encode(),
            "a bracket too much": GOOD_JSON.encode() + b"}",
            "a vertical tab": b"\x0b" + GOOD_JSON.encode(),
            "a no-break space": b"\xc2\xa0" + GOOD_JSON.encode(),
            "form data": b"amount=49.99&currency=GBP",
            "XML": b"<payment><amount>49.99</amount></payment>",
            "bytes": bytes(range(256)),
            "NaN": with_source(INNER.replace("2025", "NaN")),
            "Infinity": with_source(INNER.replace("2025", "Infinity")),
            "a plus sign": with_source(INNER.replace("2025", "+2025")),
            "a leading zero": with_source(INNER.replace("2025", "02025")),
            "a hexadecimal number": with_source(INNER.replace("2025", "0x7e9")),
            "a bare fraction": with_source(INNER.replace("2025", ".5")),
            "a fraction without digits": with_source(INNER.replace("2025", "2025.")),
            "an exponent without digits": with_source(INNER.replace("2025", "2025e")),
            "True": with_source(INNER.replace("2025", "True")),
            "undefined": with_source(INNER.replace("2025", "undefined")),
            "an escaped name": GOOD_JSON.replace('"amount"', '"\\u0061mount"').encode(),
            "an unknown escape": GOOD_JSON.replace("J. Doe", "J.\\x20Doe").encode(),
            "a short escape": GOOD_JSON.replace("J. Doe", "J.\\u20Doe").encode(),
            "a NUL escape": GOOD_JSON.replace("J. Doe", "J.\\u0000Doe").encode(),
            "a raw NUL": GOOD_JSON.replace("J. Doe", "J.\0Doe").encode(),
            "a raw line feed in a string": GOOD_JSON.replace("J. Doe", "J.\nDoe").encode(),
            "half of a surrogate pair": GOOD_JSON.replace("J. Doe", "J.\\ud800Doe").encode(),
            "the other half": GOOD_JSON.replace("J. Doe", "J.\\udc00Doe").encode(),
            "two first halves": GOOD_JSON.replace("J. Doe", "J.\\ud800\\ud800").encode(),
            "a raw surrogate": GOOD_JSON.encode().replace(b"J. Doe", b"J.\xed\xa0\x80"),
            "Latin-1": GOOD_JSON.replace("J. Doe", "Zo\u00eb").encode("latin-1").replace(b"\\u00eb", b"\xeb"),
            "an overlong byte sequence": GOOD_JSON.encode().replace(b"J. Doe", b"J.\xc0\xafDoe"),
            "above U+10FFFF": GOOD_JSON.encode().replace(b"J. Doe", b"J.\xf4\x90\x80\x80"),
            "an unfinished character": GOOD_JSON.encode().replace(b"J. Doe", b"J.\xe2\x82"),
            "9 levels": with_more('"a":' + "[" * 9 + "]" * 9),
            "5,000 levels": with_more('"a":' + "[" * 5_000 + "]" * 5_000),
            "5,000 levels of objects": b'{"a":' * 5_000,
        }.items()
    ),
)


@pytest.mark.parametrize(("body", "status", "faults"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
async def test_a_body_is_strict_json_of_known_names(
    stack: Stack, watch: Watch, order: str, body: bytes, status: int, faults: Mapping[str, str]
) -> None:
    answer = await stack.rest.send("POST", f"/orders/{order}/payment", token=stack.token(), data=body)
    reason = "INVALID_FIELDS" if status == 422 else "BAD_REQUEST"
    assert (status, reason) == (answer.http, answer.reason)
    assert faults.items() <= {(entry["field"], entry["code"]) for entry in answer.body["errors"]}
    assert "application/problem+json" == answer.headers["content-type"]
    assert not re.search("[0-9]{6}", answer.text.replace(order, ""))
    assert "proto" not in answer.text
    assert ([], []) == await watch.changes()


# Query strings: method and path -> status. {order} is a placed order, {other} another of the same owner.
QUERIES = (
    *(
        ("POST", "/orders/{order}/payment?" + query, 400)
        for query in (
            "order_id={other}",
            "orderId={other}",
            "payment.amount=0.01",
            "payment.source.number=" + PAN,
            "amount=1",
            "payment.source.cvc=123",
            "pageSize=1",
            "%6frderId={other}",
            "x",
            "=",
            "idempotency-key=1",
            "access_token=x",
        )
    ),
    *(
        ("POST", "/orders?" + query, 400)
        for query in ("totalAmount=1", "user_id=bob", "metadata.a=b", "status=approved")
    ),
    *(("GET", "/orders/{order}?" + query, 400) for query in ("order_id={other}", "format=pdf", "fields=*")),
    *(("DELETE", "/orders/{order}?" + query, 400) for query in ("order_id={other}", "force=true")),
    *(("GET", "/orders/{order}/payment?" + query, 400) for query in ("payment_id={other}", "order_id={other}")),
    *(
        ("GET", "/orders?" + query, 400)
        for query in (
            "pageSize",
            "pagesize=1",
            "page_size=1",
            "pageSize=1&pageSize=1",
            "pageSize=1&x=y",
            "pageSize=1.5",
            "pageSize=one",
            "pageSize=",
            "pageSize=99999999999",
            "pageSize[]=1",
            "filter=1",
            PAN + "=1",
            "&&x=1",
        )
    ),
    *(
        ("GET", "/orders?" + query, 422)
        for query in (
            "pageSize=0",
            "pageSize=-1",
            "pageSize=101",
            "pageToken=%27%20OR%201=1",
            "pageToken=AAAA",
            "pageToken=" + "A" * 65,
            "pageToken=../..",
            "pageToken=%00",
        )
    ),
)


@pytest.mark.parametrize(
    ("method", "path", "status"), QUERIES, ids=[f"{row[0]} {row[1]}".replace(PAN, "PAN") for row in QUERIES]
)
async def test_a_query_holds_only_what_is_listed(
    stack: Stack, watch: Watch, order: str, method: str, path: str, status: int
) -> None:
    answer = await stack.rest.send_raw(
        request_text(
            method, path.format(order=order, other=some_id()), stack.token(), payment() if method == "POST" else None
        )
    )
    assert (status, "BAD_REQUEST" if status == 400 else "INVALID_FIELDS") == (answer.http, answer.reason)
    assert not re.search("[0-9]{6}", answer.text.replace(order, ""))
    assert ([], []) == await watch.changes()


def request_text(method: str, path: str, token: str, body: Any = None, headers: str = "") -> bytes:
    """A whole HTTP/1.1 request; a body that is no bytes becomes JSON."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: payorder\r\nauthorization: Bearer {token}\r\n{headers}"
    if data:
        head += f"content-length: {len(data)}\r\n"
    if data and "content-type" not in headers:
        head += "content-type: application/json\r\n"
    return head.encode("latin-1") + b"\r\n" + data


# Paths, all with GET -> status; 400 with an id that is none, 404 where no operation is.
PATHS = (
    *(
        (f"/orders/{name}", 400)
        for name in (
            "no-uuid",
            "1",
            PAN,
            "..%2f..",
            "%2e%2e%2f",
            "a%2Fb",
            "{order}%00",
            "{order}x",
            "018f00000000700080000000000000aa",
            "' OR 1=1",
            "a" * 4096,
            "%5c",
            "..%5c",
            "018f0000-0000-7000-8000-00000000000g",
        )
    ),
    *((f"/payments/{name}", 400) for name in ("no-uuid", PAN, "{order}%2f..")),
    *(
        (path, 404)
        for path in (
            "/orders/",
            "//orders",
            "/orders//",
            "/orders//payment",
            "/orders/{order}/",
            "/orders/{order}//payment",
            "/orders/{order}/payment/",
            "/ORDERS",
            "/Orders/{order}",
            "/orders/{order}/Payment",
            "/orders/%ff",
            "/orders/{order}/pay",
            "/orders;pageSize=1",
            "/orders.json",
            "/payments",
            "/payments/",
            "/admin/order",
            "/v1/orders",
            "/",
            "/%",
            "/.",
            "/orders/../../etc/passwd",
            "/.git/config",
            "/metrics",
            "/stats",
            "/config_dump",
            "/quitquitquit",
            "/healthz",
            "/payments.v1.OrderService/ListOrders",
            "/payments.v1.PaymentService/PayOrder",
            "/grpc.health.v1.Health/Check",
            "/orders/%E2%82%AC",
            "/orders/{order}:pay",
            "/orders/{{{order}}}",
            "/orders/urn:uuid:{order}",
            "/payments/*",
        )
    ),
)


@pytest.mark.parametrize(("path", "status"), PATHS, ids=[row[0][:60].replace(PAN, "PAN") for row in PATHS])
async def test_a_path_means_one_thing_or_nothing(
    stack: Stack, watch: Watch, order: str, path: str, status: int
) -> None:
    answer = await stack.rest.send_raw(request_text("GET", path.format(order=order), stack.token()))
    assert status == answer.http
    assert answer.reason in ("BAD_REQUEST", "NOT_FOUND")
    assert not re.search("[0-9]{6}", answer.text.replace(order, "").replace("018f0000", ""))
    assert ([], []) == await watch.changes()


METHODS = ("PUT", "PATCH", "DELETE", "HEAD", "TRACE", "OPTIONS")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/orders", "/orders/{order}/payment"])
async def test_a_method_that_a_path_has_not_is_not_found(
    stack: Stack, watch: Watch, order: str, path: str, method: str
) -> None:
    if method == "HEAD":
        # Its answer has the length of a body and no body.
        answer = await stack.rest.send(method, path.format(order=order), token=stack.token())
        assert 404 == answer.http
    else:
        answer = await stack.rest.send_raw(request_text(method, path.format(order=order), stack.token()))
        assert (404, "NOT_FOUND") == (answer.http, answer.reason)
    assert ([], []) == await watch.changes()


MEDIA_TYPES = (
    "text/plain",
    "text/plain; charset=utf-8",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/jsonx",
    "application/problem+json",
    "application/vnd.api+json",
    "text/json",
    "application/json; charset=latin-1",
    "application/json; charset=utf-16",
    "application/octet-stream",
    "*/*",
    "",
    "application/x-protobuf",
    "application/json, text/plain",
)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
async def test_only_json_in_utf_8_is_taken(stack: Stack, watch: Watch, order: str, media_type: str) -> None:
    headers = f"content-type: {media_type}\r\n"
    answer = await stack.rest.send_raw(
        request_text("POST", f"/orders/{order}/payment", stack.token(), payment(), headers)
    )
    assert (415, "UNSUPPORTED_MEDIA_TYPE") == (answer.http, answer.reason)
    assert ([], []) == await watch.changes()


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "Application/JSON", 'application/json; charset="UTF-8"', "application/json;charset=utf-8"],
)
async def test_json_may_be_named_in_its_usual_ways(stack: Stack, watch: Watch, media_type: str) -> None:
    headers = {"content-type": media_type}
    answer = await stack.rest.send(
        "POST", "/orders", token=stack.token(), data=json.dumps(ORDER).encode(), headers=headers
    )
    assert 201 == answer.http
    await watch.changes()


NO_ID, NO_KEY = "BAD_REQUEST", "BAD_REQUEST"
# Headers of a PayOrder request -> status and reason.
HEADERS = (
    *(
        ("content-encoding: " + coding, 415, "UNSUPPORTED_MEDIA_TYPE")
        for coding in ("gzip", "br", "deflate", "zstd", "gzip, gzip")
    ),
    *(
        ("idempotency-key: " + key, 400, NO_KEY)
        for key in (
            "",
            "   ",
            '""',
            "k" * 256,
            "\xe9",
            PAN,
            "4444-3333-2222-1111",
            f'"{PAN}"',
            'a"b',
            "a\r\nidempotency-key: b",
        )
    ),
    ("content-type: application/grpc+json", 200, None),
    ("x_user_id: bob", 400, "BAD_REQUEST"),
    ("x user: bob", 400, "BAD_REQUEST"),
    ("no colon", 400, "BAD_REQUEST"),
    ("x-nul: a\0b", 400, "BAD_REQUEST"),
    ("idempotency-key: a\x01b", 400, "BAD_REQUEST"),
    ("x-long: " + "a" * 17_000, 431, "REQUEST_TOO_LARGE"),
    ("\r\n".join(f"x-{index}: 1" for index in range(1_000)), 431, "REQUEST_TOO_LARGE"),
)


@pytest.mark.parametrize(
    ("lines", "status", "reason"), HEADERS, ids=[says(row[0]) + f" {i}" for i, row in enumerate(HEADERS)]
)
async def test_a_header_that_is_not_lawful_ends_the_request(
    stack: Stack, watch: Watch, order: str, lines: str, status: int, reason: str | None
) -> None:
    request = request_text("POST", f"/orders/{order}/payment", stack.token(), payment(), lines + "\r\n")
    answer = await stack.rest.send_raw(request)
    assert (status, reason) == (answer.http, answer.reason)
    assert PAN not in answer.text
    assert ([], []) == await watch.changes()
    assert "12" == answer.headers.get("grpc-status", "12")


# Headers that would mean something to somebody, and mean nothing here: the order is the caller's, and 201.
IGNORED = (
    "x-user-id: bob",
    "x-forwarded-user: bob",
    "x-http-method-override: DELETE",
    "x-http-status: 599",
    "x-method-override: GET",
    "x-envoy-original-path: /orders/x",
    "x-envoy-retry-grpc-on: unavailable",
    "x-envoy-max-retries: 5",
    "x-envoy-hedge-on-per-try-timeout: true",
    "x-envoy-upstream-rq-timeout-ms: 1",
    "grpc-timeout: 1n",
    "grpc-encoding: gzip",
    "grpc-accept-encoding: gzip",
    "te: trailers",
    "x-original-url: /admin",
    "x-data-bin: !!!",
    "x-forwarded-for: 1.2.3.4, 5.6.7.8",
    "traceparent: 4444333322221111",
    "x-request-id: 4444333322221111",
    "cookie: sub=bob",
    "expect: 100-continue",
)


@pytest.mark.parametrize("line", IGNORED, ids=[line.replace(PAN, "PAN") for line in IGNORED])
async def test_a_header_of_somebody_else_s_protocol_means_nothing(stack: Stack, watch: Watch, line: str) -> None:
    answer = await stack.rest.send_raw(request_text("POST", "/orders", stack.token(), ORDER, line + "\r\n"))
    assert (201, "alice", "placed") == (answer.http, answer.body.get("userId"), answer.body.get("status"))
    assert PAN not in str(answer.headers)
    assert ((1, 0)) == tuple(map(len, await watch.changes()))


CHUNKED = "transfer-encoding: chunked\r\n"
# Messages that are no HTTP, or two at once -> status; None where the caller never finishes and nothing is answered.
MESSAGES = (
    ("HTTP/1.0", b"GET /orders HTTP/1.0\r\n\r\n", 400),
    ("no version", b"GET /orders\r\n\r\n", 400),
    ("another version", b"GET /orders HTTP/9.9\r\nhost: x\r\n\r\n", 400),
    ("no host", b"GET /orders HTTP/1.1\r\n\r\n", 400),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ("a method of card digits", PAN.encode() + b" /orders HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("a method in lower case", b"get /orders HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("a space in the path", b"GET /orders /x HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("a fragment", b"GET /orders#x HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("a raw byte in the path", b"GET /orders/\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("a WebSocket", b"GET /orders HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", 400),
    ("a tunnel", b"CONNECT payorder:443 HTTP/1.1\r\nhost: payorder:443\r\n\r\n", 404),
    ("a path of 20 KB", b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
)
# The same with a good token and a good order behind it: lines for the length of the body, and the body.
ORDER_BYTES = json.dumps(ORDER).encode()
LENGTHS = (
    ("a length too short", "content-length: 10\r\n", ORDER_BYTES, 400),
    ("a length too long", "content-length: 4000\r\n", ORDER_BYTES, None),
    ("a negative length", "content-length: -1\r\n", ORDER_BYTES, 400),
    ("a length of letters", "content-length: 4x\r\n", ORDER_BYTES, 400),
    ("two lengths", f"content-length: 10\r\ncontent-length: {len(ORDER_BYTES)}\r\n", ORDER_BYTES, 400),
    ("a length and chunks", f"content-length: {len(ORDER_BYTES)}\r\n{CHUNKED}", ORDER_BYTES, 400),
    ("chunks of no length", CHUNKED, b"zz\r\n" + ORDER_BYTES, 400),
    ("chunks without end", CHUNKED, b"%x\r\n%b\r\n" % (len(ORDER_BYTES), ORDER_BYTES), None),
    ("a chunk of 34 KB", CHUNKED, b"8800\r\n" + b" " * 0x8800 + b"\r\n0\r\n\r\n", 413),
    ("no length", "", ORDER_BYTES, 400),
)


@pytest.mark.parametrize(("message", "status"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES])
async def test_what_is_no_http_1_1_is_a_problem(stack: Stack, watch: Watch, message: bytes, status: int) -> None:
    answer = await stack.rest.send_raw(message)
    assert status == answer.http
    assert ("application/problem+json", "no-store") == (answer.headers["content-type"], answer.headers["cache-control"])
    assert PAN not in answer.text
    assert ([], []) == await watch.changes()


@pytest.mark.parametrize(("lines", "body", "status"), [row[1:] for row in LENGTHS], ids=[row[0] for row in LENGTHS])
async def test_a_body_of_unclear_length_is_not_read(
    stack: Stack, watch: Watch, lines: str, body: bytes, status: int | None
) -> None:
    head = f"POST /orders HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {stack.token()}\r\n"
    lines += "content-type: application/json\r\n"
    request = head.encode() + lines.encode() + b"\r\n" + body
    answer = await stack.rest.send_raw(request, waits_seconds=20 if status else 0.3)
    assert status == answer.http
    assert ([], []) == await watch.changes()


async def test_a_transfer_coding_that_is_not_known_is_a_problem(stack: Stack) -> None:
    request = request_text("POST", "/orders", stack.token(), headers="transfer-encoding: gzip\r\n")
    answer = await stack.rest.send_raw(request)
    assert (400, "BAD_REQUEST") == (answer.http, answer.reason)


CREATE, PAY = "/payments.v1.OrderService/CreateOrder", "/payments.v1.PaymentService/PayOrder"
GOOD_ORDER = CreateOrderRequest(total_amount="49.99", currency="GBP").SerializeToString()
OK_CURRENCY = b"\x1a\x03GBP"
KEY = "idempotency-key"
# Native calls as bytes: RPC, message, metadata -> code and reason.
NATIVE = (
    ("no message", CREATE, b"", (), "INVALID_ARGUMENT", "INVALID_FIELDS"),
    ("an amount as a number", CREATE, b"\x10\x31" + OK_CURRENCY, (), "INVALID_ARGUMENT", "INVALID_FIELDS"),
    ("a message cut off", CREATE, GOOD_ORDER[:-1], (), "INVALID_ARGUMENT", "BAD_REQUEST"),
    ("a length beyond the end", PAY, b"\x0a\xff", (), "INVALID_ARGUMENT", "BAD_REQUEST"),
    ("text that is not UTF-8", CREATE, b"\x12\x02\xff\xfe" + OK_CURRENCY, (), "INVALID_ARGUMENT", "BAD_REQUEST"),
    ("text with a surrogate", CREATE, b"\x12\x03\xed\xa0\x80" + OK_CURRENCY, (), "INVALID_ARGUMENT", "BAD_REQUEST"),
    ("text with a NUL", CREATE, b"\x12\x0349\0" + OK_CURRENCY, (), "INVALID_ARGUMENT", "INVALID_FIELDS"),
    ("the end of a group", CREATE, b"\x0c", (), "INVALID_ARGUMENT", "BAD_REQUEST"),
    ("field number 0", CREATE, b"\x00\x01", (), "INVALID_ARGUMENT", "BAD_REQUEST"),
    ("200 nested groups", CREATE, b"\x7b" * 200 + b"\x7c" * 200, (), "INVALID_ARGUMENT", "BAD_REQUEST"),
    ("JSON", CREATE, ORDER_BYTES, (), "INVALID_ARGUMENT", "BAD_REQUEST"),
    ("70 KB", CREATE, b"\x22" + b"\xf0\xa2\x04" + b"a" * 70_000, (), "RESOURCE_EXHAUSTED", None),
    ("20 KB of metadata", CREATE, GOOD_ORDER, (("x-long", "a" * 20_000),), "RESOURCE_EXHAUSTED", None),
    (
        "1,000 entries of metadata",
        CREATE,
        GOOD_ORDER,
        tuple((f"x-{i}", "1" * 20) for i in range(1_000)),
        "RESOURCE_EXHAUSTED",
        None,
    ),
    ("no key in the key", CREATE, GOOD_ORDER, ((KEY, ""),), "INVALID_ARGUMENT", "BAD_REQUEST"),
    ("a key of 256 characters", CREATE, GOOD_ORDER, ((KEY, "k" * 256),), "INVALID_ARGUMENT", "BAD_REQUEST"),
    ("two keys", CREATE, GOOD_ORDER, ((KEY, "a"), (KEY, "b")), "INVALID_ARGUMENT", "BAD_REQUEST"),
    ("a card number as the key", CREATE, GOOD_ORDER, ((KEY, PAN),), "INVALID_ARGUMENT", "BAD_REQUEST"),
    ("an unknown method", "/payments.v1.PaymentService/Capture", b"", (), "UNIMPLEMENTED", None),
    ("an unknown service", "/payments.v1.SecretService/Get", b"", (), "UNIMPLEMENTED", None),
    ("a method in lower case", "/payments.v1.paymentservice/payorder", b"", (), "UNIMPLEMENTED", None),
    ("two slashes", "/" + PAY, b"", (), "UNIMPLEMENTED", None),
    ("a slash at the end", PAY + "/", b"", (), "UNIMPLEMENTED", None),
)


@pytest.mark.parametrize(
    ("rpc", "message", "metadata", "code", "reason"), [row[1:] for row in NATIVE], ids=[row[0] for row in NATIVE]
)
async def test_a_native_call_that_cannot_be_read_is_refused(
    stack: Stack,
    watch: Watch,
    rpc: str,
    message: bytes,
    metadata: tuple[tuple[str, str], ...],
    code: str,
    reason: str | None,
) -> None:
    answer = await native_call(stack, rpc, message, metadata)
    assert (code, reason) == (answer.code, answer.reason)
    assert "Exception" not in answer.text
    assert "DecodeError" not in answer.text
    assert PAN not in answer.text
    assert ([], []) == await watch.changes()


async def native_call(stack: Stack, rpc: str, message: bytes, metadata: Any = (), **options: Any) -> Answer:
    metadata = (("authorization", f"Bearer {stack.token()}"), *metadata)
    try:
        await stack.grpc.channel.unary_unary(rpc)(message, metadata=metadata, timeout=10, **options)
    except grpc.aio.AioRpcError as error:
        return answer_of(error)
    return Answer("OK", None, {})


async def test_a_message_that_grows_when_it_is_unpacked_is_refused(stack: Stack, watch: Watch) -> None:
    bomb = CreateOrderRequest(description="a" * 10_000_000).SerializeToString()
    answer = await native_call(stack, CREATE, bomb, compression=grpc.Compression.Gzip)
    assert "RESOURCE_EXHAUSTED" == answer.code
    assert ([], []) == await watch.changes()


async def test_unknown_protobuf_fields_set_nothing(stack: Stack, watch: Watch) -> None:
    """Newer clients send them lawfully; here they try to be status, owner and paid payment."""
    fields = b"".join(bytes([number << 3 | 2, 8]) + b"approved" for number in (7, 8, 9, 10, 11, 12))
    answer = await native_call(stack, CREATE, GOOD_ORDER + fields)
    assert "OK" == answer.code
    created, payments = await watch.changes()
    assert [("alice", "placed", None)] == [(row["owner_sub"], row["status"], row["paid_payment_id"]) for row in created]
    assert [] == payments


async def test_at_most_sixteen_fields_are_named(stack: Stack, watch: Watch, order: str) -> None:
    broken = dict.fromkeys(CARD, "\t") | {"expMonth": 0, "expYear": 0} | dict.fromkeys(BANK_ACCOUNT, "\t")
    body = {"amount": "x", "currency": "x", "source": broken}
    for door in (stack.rest, stack.grpc, stack.grpc_through_envoy):
        answer = await door.call("PayOrder", {"orderId": order, "payment": copy.deepcopy(body)}, token=stack.token())
        assert (422, "INVALID_FIELDS", 16) == (answer.http, answer.reason, len(answer.body["errors"]))
    assert ([], []) == await watch.changes()


async def test_after_all_of_it_the_order_can_be_paid(stack: Stack, order: str, watch: Watch) -> None:
    answer = await stack.rest.call("PayOrder", {"orderId": order, "payment": payment()}, token=stack.token())
    assert (201, "succeeded") == (answer.http, answer.body["status"])
    await watch.changes()
