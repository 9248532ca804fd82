"""A client of the service: raw bytes in and out, every call in the transcript."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from harness.cards import card_number
from harness.transcript import Call, Transcript
from payments.v1.order_pb2 import Order
from payments.v1.order_service_pb2 import CancelOrderRequest, CreateOrderRequest
from payments.v1.payment_pb2 import OrderPayment, PaymentDetails
from payments.v1.payment_service_pb2 import GetPaymentRequest, PayOrderRequest
from payments.v1.source_pb2 import PaymentSource

Metadata = Sequence[tuple[str, str]]

CURRENCY = "GBP"
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Card:
    """`label` names it in the transcript, where its number must not be."""

    label: str
    number: str
    cvc: str

    @classmethod
    def new(cls, random: Random) -> "Card":
        card = cls(f"card-{random.getrandbits(48):012x}", card_number(random), f"{random.randrange(1000):03}")
        SENT.append(card)
        return card


# Every card of this process, for whoever searches for them.
SENT: list[Card] = []


class Door:
    """One way in: a channel to one process or to Envoy."""

    def __init__(self, address: str) -> None:
        self.port = int(address.rpartition(":")[2])
        self.channel = grpc.aio.insecure_channel(address, options=_OPTIONS)

    def method(self, path: str) -> Any:
        return self.channel.unary_unary(path, request_serializer=lambda message: message.SerializeToString())


class Client:
    """Calls as one caller. `metadata` goes with every call."""

    def __init__(self, caller: str, token: str, transcript: Transcript, metadata: Metadata = ()) -> None:
        self.caller = caller
        self._metadata = (("authorization", f"Bearer {token}"), *metadata)
        self._transcript = transcript

    async def create(self, door: Door, amount_minor: int, *, key: str | None, timeout_seconds: float = 5) -> Call:
        request = CreateOrderRequest(total_amount=_decimal(amount_minor), currency=CURRENCY)
        call = Call("CreateOrder", self.caller, "", key, f"create {amount_minor}", amount_minor)
        await self._run(door, "/payments.v1.OrderService/CreateOrder", call, request, timeout_seconds)
        if call.code == "OK":
            call.order = Order.FromString(call.answer).id
        self._transcript.write(call)
        return call

    async def pay(
        self,
        door: Door,
        order: str,
        amount_minor: int,
        card: Card,
        *,
        key: str | None,
        timeout_seconds: float = 5,
        hang_up_after_seconds: float | None = None,
    ) -> Call:
        source = PaymentSource(
            object="card", name="J. Doe", number=card.number, cvc=card.cvc, exp_month=12, exp_year=2031
        )
        details = PaymentDetails(amount=_decimal(amount_minor), currency=CURRENCY, source=source)
        request = PayOrderRequest(order_id=order, payment=details)
        call = Call("PayOrder", self.caller, order, key, f"pay {order} {amount_minor} {card.label}", amount_minor)
        path = "/payments.v1.PaymentService/PayOrder"
        await self._run(door, path, call, request, timeout_seconds, hang_up_after_seconds)
        self._read_payment(call)
        self._transcript.write(call)
        return call

    async def read(self, door: Door, payment: str, order: str) -> Call:
        call = Call("GetPayment", self.caller, order, None, f"read {payment}", 0)
        request = GetPaymentRequest(payment_id=payment)
        await self._run(door, "/payments.v1.PaymentService/GetPayment", call, request, 3)
        self._read_payment(call)
        self._transcript.write(call)
        return call

    async def cancel(self, door: Door, order: str, *, key: str | None) -> Call:
        call = Call("CancelOrder", self.caller, order, key, f"cancel {order}", 0)
        request = CancelOrderRequest(order_id=order)
        await self._run(door, "/payments.v1.OrderService/CancelOrder", call, request, 6)
        if call.code == "OK":
            call.status = Order.FromString(call.answer).status
        self._transcript.write(call)
        return call

    def _read_payment(self, call: Call) -> None:
        if call.code == "OK":
            payment = OrderPayment.FromString(call.answer)
            call.payment, call.status = payment.id, payment.status

    async def _run(
        self,
        door: Door,
        path: str,
        call: Call,
        request: Any,
        timeout_seconds: float,
        hang_up_after_seconds: float | None = None,
    ) -> None:
        metadata = self._metadata if call.key is None else (*self._metadata, ("idempotency-key", call.key))
        call.began = time.time()
        running = door.method(path)(request, timeout=timeout_seconds, metadata=metadata)
        has_left = asyncio.Event()

        def leave() -> None:
            has_left.set()
            running.cancel()

        leaving = asyncio.get_running_loop().call_later(hang_up_after_seconds or 3600, leave)
        try:
            call.answer = await running
            call.code = "OK"
        except grpc.aio.AioRpcError as error:
            _read_error(call, error)
        except asyncio.CancelledError:
            if not has_left.is_set():
                raise
            call.code = "HUNG_UP"
        finally:
            leaving.cancel()
        if call.code not in ("HUNG_UP", "CANCELLED"):
            _read_metadata(call, await running.initial_metadata())
        call.ended = time.time()


def _read_error(call: Call, error: grpc.aio.AioRpcError) -> None:
    call.code = error.code().name
    trailers = {key: value for key, value in error.trailing_metadata() or ()}  # noqa: C416 - gRPC's own mapping type
    call.replayed = trailers.get("idempotent-replayed") == "true"
    call.answer = trailers.get("grpc-status-details-bin", b"")
    status = Status.FromString(call.answer)
    info = ErrorInfo()
    if status.details and status.details[0].Unpack(info):
        call.reason = info.reason
        call.payment = info.metadata.get("paymentId")


def _read_metadata(call: Call, metadata: Any) -> None:
    headers = {key: value for key, value in metadata or ()}  # noqa: C416 - as above
    call.replayed = call.replayed or headers.get("idempotent-replayed") == "true"
    call.location = headers.get("location")


def _decimal(amount_minor: int) -> str:
    return f"{amount_minor // 100}.{amount_minor % 100:02}"
