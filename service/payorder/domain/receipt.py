"""A receipt: what was taken for an order, how, and how much of it was given back."""

import json
from dataclasses import dataclass
from datetime import datetime

from payorder.domain.json_time import to_json_time
from payorder.domain.money import Money
from payorder.domain.source import MaskedSource

# The type in the header of what signs one: it keeps a receipt from being taken for a token, and anything else that the
# same key has signed from being taken for a receipt (RFC 8725, section 3.11).
SIGNATURE_TYPE = "receipt+jws"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Of the payment of an order that succeeded. Only `refunded_minor` ever changes: it grows.

    `description` is the order's, for people; like the payer's name it stands in documents, and is not signed.
    """

    id: str
    order_id: str
    payment_id: str
    amount: Money
    refunded_minor: int
    source: MaskedSource
    description: str | None
    generated_at: datetime

    @property
    def path(self) -> str:
        return f"/orders/{self.order_id}/receipt"

    @property
    def payer(self) -> str:
        return self.source.name

    @property
    def payment_method(self) -> str:
        """For people: "Visa ending 4242"."""
        kind = "Bank account" if self.source.object == "bank_account" else self.source.brand or "Card"
        return f"{kind} ending {self.source.number[-4:]}"

    @property
    def refunded_amount(self) -> str:
        """A decimal string with the digits of the currency."""
        return self.amount.currency.decimal(self.refunded_minor)


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """A receipt with its `url` and `seller`, and the `signature` of what `statement` says of all three.

    `seller`: who was paid, in lines, if it was said. `signature`: a compact JWS (RFC 7515).
    """

    receipt: Receipt
    url: str
    seller: str | None
    signature: str


def statement(receipt: Receipt, url: str, seller: str | None) -> bytes:
    """What is signed: names and values of the receipt in JSON, each value a text."""
    # Without a seller there is no such member: what was signed before there could be one is signed alike.
    return canonical(
        ({} if seller is None else {"seller": seller})
        | {
            "receiptId": receipt.id,
            "receiptUrl": url,
            "generatedAt": to_json_time(receipt.generated_at),
            "orderId": receipt.order_id,
            "paymentId": receipt.payment_id,
            "amount": str(receipt.amount),
            "currency": receipt.amount.currency.code,
            "paymentMethod": receipt.payment_method,
            "refundedAmount": receipt.refunded_amount,
        }
    )


def canonical(members: dict[str, str]) -> bytes:
    """JSON in the one form that RFC 8785 gives it, as long as names are ASCII and values texts."""
    return json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
