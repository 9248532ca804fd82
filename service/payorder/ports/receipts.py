"""Who makes a receipt into something that people can read and print."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from payorder.domain.receipt import SignedReceipt

Format = Literal["html", "pdf"]


@dataclass(frozen=True, slots=True)
class Document:
    """`policy`: the Content-Security-Policy under which a browser may show it, None where it has no meaning."""

    content_type: str
    content: bytes
    policy: str | None = None


class ReceiptPrinter(Protocol):
    async def print(self, signed: SignedReceipt, form: Format, locales: Sequence[str]) -> Document:
        """`locales`: language tags (BCP 47), the most wanted first, of which none need be known. Raises Busy."""
        ...
