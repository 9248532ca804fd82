"""Requests as the documented page prints them, to be varied by a test."""

import copy
from typing import Any
from uuid import uuid4

Body = dict[str, Any]

APPROVED = "4242424242424242"
DECLINED = "4000000000000002"
# Numbers of the sandbox's own: certainly not charged, and nobody knows.
NOT_CHARGED = "4000000004000503"
OUTCOME_UNKNOWN = "4000000008000202"

ORDER: Body = {"totalAmount": "49.99", "currency": "GBP"}

# Nobody listens there.
ENDPOINT: Body = {"url": "http://127.0.0.1:9/events"}
CALLBACK: Body = {
    "amount": "49.99",
    "currency": "GBP",
    "timestamp": "2026-11-22T13:58:22Z",
    "callbackUrl": "http://127.0.0.1:9/callback",
}

CARD: Body = {
    "object": "card",
    "name": "J. Doe",
    "number": APPROVED,
    "cvc": "123",
    "expMonth": 12,
    "expYear": 2025,
    "addressLine1": "123 Fake Street",
    "addressLine2": "4th Floor",
    "addressCity": "London",
    "addressCountry": "gb",
    "addressPostCode": "N12 9XX",
}

BANK_ACCOUNT: Body = {
    "object": "bank_account",
    "name": "J. Doe",
    "number": "00012345",
    "sortCode": "000123",
    "accountType": "individual",
    "bankName": "Starling Bank",
    "country": "gb",
}


def payment(amount: Any = "49.99", currency: Any = "GBP", **card: Any) -> Body:
    """The documented card payment; keyword arguments replace fields of the card, `...` leaves one out."""
    return {"amount": amount, "currency": currency, "source": varied(CARD, **card)}


def bank_payment(amount: Any = "49.99", currency: Any = "GBP", **account: Any) -> Body:
    return {"amount": amount, "currency": currency, "source": varied(BANK_ACCOUNT, **account)}


def varied(body: Body, **changes: Any) -> Body:
    changed = copy.deepcopy(body) | changes
    return {name: value for name, value in changed.items() if value is not ...}


def some_id() -> str:
    return str(uuid4())
