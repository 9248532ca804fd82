"""What a receipt says, and how it is signed: the same bytes for the same facts."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from payorder.adapters.signing import Ed25519Signer
from payorder.domain.money import Currency, Money
from payorder.domain.receipt import Receipt, statement
from payorder.workflows.sign_receipt import SignReceipt
from support.records import BANK_ACCOUNT, CARD, LATER, NOON, TOTAL

RECEIPT = Receipt("receipt", "order", "payment", TOTAL, 0, replace(CARD, brand="Visa"), "Ein Hund", LATER)


def test_a_statement_has_every_member_as_a_text_in_the_order_of_the_names() -> None:
    expected = (
        '{"amount":"49.99","currency":"GBP","generatedAt":"2026-01-01T12:00:01.234Z","orderId":"order",'
        '"paymentId":"payment","paymentMethod":"Visa ending 4242","receiptId":"receipt",'
        '"receiptUrl":"https://pay.example/orders/order/receipt","refundedAmount":"0.00"}'
    )
    assert expected.encode() == statement(RECEIPT, f"https://pay.example{RECEIPT.path}", None)


def test_a_statement_says_who_was_paid_where_that_is_known() -> None:
    anonymous, told = (json.loads(statement(RECEIPT, "", seller)) for seller in (None, "Tiere & Mehr\nHauptstraße 1"))
    assert anonymous | {"seller": "Tiere & Mehr\nHauptstraße 1"} == told


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (replace(CARD, brand="American Express"), "American Express ending 4242"),
        (CARD, "Card ending 4242"),
        (BANK_ACCOUNT, "Bank account ending 2345"),
    ],
)
def test_a_payment_method_is_told_by_its_last_four_digits(source: object, expected: str) -> None:
    assert expected == replace(RECEIPT, source=source).payment_method


@pytest.mark.parametrize(
    ("currency", "refunded", "amount", "refunded_amount"),
    [
        (Currency("JPY", 0), 0, "4999", "0"),
        (Currency("KWD", 3), 1, "4.999", "0.001"),
        (TOTAL.currency, 5, "49.99", "0.05"),
    ],
)
def test_amounts_have_the_digits_of_their_currency(
    currency: Currency, refunded: int, amount: str, refunded_amount: str
) -> None:
    told = json.loads(statement(replace(RECEIPT, amount=Money(4999, currency), refunded_minor=refunded), "", None))
    assert (amount, refunded_amount) == (told["amount"], told["refundedAmount"])


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (NOON, "2026-01-01T12:00:00Z"),
        (datetime(2026, 1, 1, 0, 0, 0, 10_000, tzinfo=UTC), "2026-01-01T00:00:00.010Z"),
    ],
)
def test_times_are_written_as_protobuf_writes_them(time: datetime, expected: str) -> None:
    assert expected == json.loads(statement(replace(RECEIPT, generated_at=time), "", None))["generatedAt"]


def test_the_same_facts_have_the_same_signature_and_others_another() -> None:
    sign = SignReceipt(signer=Ed25519Signer.generate(), public_url="", seller=None)
    assert sign(RECEIPT) == sign(replace(RECEIPT))
    assert sign(RECEIPT).signature != sign(replace(RECEIPT, refunded_minor=1)).signature


def test_a_signature_says_its_key_and_cannot_be_taken_for_a_token() -> None:
    signer = Ed25519Signer.generate()
    header = SignReceipt(signer=signer, public_url="", seller=None)(RECEIPT).signature.partition(".")[0]
    read = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    assert {"alg": "EdDSA", "kid": signer.key_id, "typ": "receipt+jws"} == read
