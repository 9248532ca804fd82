"""Receipts: translation between protobuf and what a receipt is, as a message, as a document, and the keys of both."""

import base64
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import grpc
from google.api.httpbody_pb2 import HttpBody

from payments.v1.payment_service_pb2 import GetReceiptRequest, RenderReceiptRequest
from payments.v1.receipt_pb2 import Receipt as ReceiptMessage
from payments.v1.receipt_pb2 import ReceiptKey, ReceiptKeys
from payorder.domain.receipt import Receipt, SignedReceipt
from payorder.edge.caller import current_origin
from payorder.edge.headers import only_over_rest, send_headers
from payorder.edge.metadata import metadata_values
from payorder.edge.translate import to_id, to_timestamp
from payorder.ports.receipts import Document, Format, ReceiptPrinter
from payorder.ports.signing import VerificationKey
from payorder.ports.store import Store
from payorder.workflows.sign_receipt import SignReceipt

Context = grpc.aio.ServicerContext[Any, Any]

_LANGUAGES_MAX = 16
_KEYS_CACHE_SECONDS = 300


class Receipts:
    """`keys`: the one that signs, and those that did before."""

    def __init__(
        self, *, store: Store, sign: SignReceipt, printer: ReceiptPrinter, keys: Sequence[VerificationKey]
    ) -> None:
        self._store = store
        self._sign = sign
        self._printer = printer
        self._keys = ReceiptKeys(keys=map(_to_key_message, keys))

    def message_of(self, receipt: Receipt) -> ReceiptMessage:
        return _to_receipt_message(self._sign(receipt))

    async def get(self, request: GetReceiptRequest) -> ReceiptMessage:
        return self.message_of(await self._paid(request.order_id))

    async def render(self, request: RenderReceiptRequest, context: Context) -> HttpBody:
        form = cast("Format", request.format)
        signed = self._sign(await self._paid(request.order_id))
        document = await self._printer.print(signed, form, _wanted_locales(request))
        await send_headers(context, only_over_rest(_headers_of(document, f"receipt-{signed.receipt.id}.{form}")))
        return HttpBody(content_type=document.content_type, data=document.content)

    async def keys(self, context: Context) -> ReceiptKeys:
        cache = f"public, max-age={_KEYS_CACHE_SECONDS}"
        await send_headers(context, only_over_rest([("cache-control", cache)]))
        return self._keys

    async def _paid(self, order_id: str) -> Receipt:
        order = await self._store.get_order(to_id(order_id), current_origin().owner)
        return order.receipt_if_paid()


def _to_receipt_message(signed: SignedReceipt) -> ReceiptMessage:
    receipt = signed.receipt
    return ReceiptMessage(
        receipt_id=receipt.id,
        receipt_url=signed.url,
        generated_at=to_timestamp(receipt.generated_at),
        order_id=receipt.order_id,
        payment_id=receipt.payment_id,
        amount=str(receipt.amount),
        currency=receipt.amount.currency.code,
        payment_method=receipt.payment_method,
        refunded_amount=receipt.refunded_amount,
        seller=signed.seller,
        signature=signed.signature,
    )


def _to_key_message(key: VerificationKey) -> ReceiptKey:
    x = base64.urlsafe_b64encode(key.raw).decode().rstrip("=")
    return ReceiptKey(kty="OKP", crv="Ed25519", x=x, kid=key.key_id, use="sig", alg="EdDSA")


def _headers_of(document: Document, file_name: str) -> list[tuple[str, str]]:
    """`file_name` is made of an id of ours."""
    headers = [
        ("content-disposition", f'inline; filename="{file_name}"'),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ]
    return headers if document.policy is None else [*headers, ("content-security-policy", document.policy)]


def _wanted_locales(request: RenderReceiptRequest) -> list[str]:
    """Language tags, the most wanted first: that of the request, then those of Accept-Language (RFC 9110, 12.5.4)."""
    named = [request.locale] if request.HasField("locale") else []
    ranges = ",".join(metadata_values("accept-language")).split(",")[:_LANGUAGES_MAX]
    accepted = sorted(map(_weighed, ranges), key=lambda weighed: weighed[0], reverse=True)
    return named + [tag for weight, tag in accepted if weight > 0]


def _weighed(language_range: str) -> tuple[float, str]:
    """Weight and tag; one whose weight cannot be read is not wanted."""
    tag, _, parameter = language_range.partition(";")
    with suppress(ValueError):
        return (float(parameter.strip().removeprefix("q=")) if parameter else 1.0), tag.strip()
    return 0.0, ""
