"""The two doors of the service: REST through Envoy, and native gRPC. One call, one kind of answer, whichever is used.

`Answer.http` of a native call is the status that its Problem carries; of a good answer it is None.
What is sent and what comes back is written down in support.leaks, for the search at the end of the run.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import aiohttp
import grpc
from google.protobuf import json_format
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from payments.v1 import admin_service_pb2, order_service_pb2, payment_service_pb2, webhook_service_pb2
from payments.v1.admin_service_pb2_grpc import AdminServiceStub
from payments.v1.order_service_pb2_grpc import OrderServiceStub
from payments.v1.payment_service_pb2_grpc import PaymentServiceStub
from payments.v1.problem_pb2 import Problem
from payments.v1.webhook_service_pb2_grpc import WebhookServiceStub
from payorder.edge.status import STATUS
from support.leaks import LEDGER
from support.server_sent_events import EVENT_STREAM, events_in

Body = dict[str, Any]

BUSY_DELAYS_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)

# RPC -> REST method, path, and the name of the request field that is the body.
ROUTES: Mapping[str, tuple[str, str, str | None]] = {
    "CreateOrder": ("POST", "/orders", "*"),
    "GetOrder": ("GET", "/orders/{orderId}", None),
    "ListOrders": ("GET", "/orders", None),
    "WatchOrder": ("GET", "/orders/{orderId}/events", None),
    "CancelOrder": ("DELETE", "/orders/{orderId}", None),
    "PayOrder": ("POST", "/orders/{orderId}/payment", "payment"),
    "GetPayment": ("GET", "/payments/{paymentId}", None),
    "GetLatestPayment": ("GET", "/orders/{orderId}/payment", None),
    "ListPayments": ("GET", "/orders/{orderId}/payments", None),
    "GetReceipt": ("GET", "/orders/{orderId}/receipt", None),
    "RenderReceipt": ("GET", "/orders/{orderId}/receipt", None),
    "GetReceiptKeys": ("GET", "/.well-known/receipt-keys", None),
    "ListAllOrders": ("GET", "/admin/orders", None),
    "ForceCancelOrder": ("POST", "/admin/orders/{orderId}/cancel", "*"),
    "UpdateOrderStatus": ("POST", "/admin/orders/{orderId}/status", "*"),
    "ListAllWebhookEndpoints": ("GET", "/admin/webhooks", None),
    "DisableWebhookEndpoint": ("POST", "/admin/webhooks/{endpointId}/disable", "*"),
    "EnableWebhookEndpoint": ("POST", "/admin/webhooks/{endpointId}/enable", "*"),
    "GetDashboardStats": ("GET", "/admin/dashboard/stats", None),
    "RequestCallback": ("POST", "/orders/{orderId}", "*"),
    "CreateWebhookEndpoint": ("POST", "/webhooks", "*"),
    "ListWebhookEndpoints": ("GET", "/webhooks", None),
    "GetWebhookEndpoint": ("GET", "/webhooks/{endpointId}", None),
    "UpdateWebhookEndpoint": ("PATCH", "/webhooks/{endpointId}", "*"),
    "DeleteWebhookEndpoint": ("DELETE", "/webhooks/{endpointId}", None),
    "RotateSecret": ("POST", "/webhooks/{endpointId}/rotate-secret", "*"),
    "SendTestEvent": ("POST", "/webhooks/{endpointId}/test", "*"),
    "ListDeliveries": ("GET", "/webhooks/{endpointId}/deliveries", None),
    "ReplayDelivery": ("POST", "/webhooks/{endpointId}/deliveries/{deliveryId}/replay", "*"),
    "ReplayDeliveries": ("POST", "/webhooks/{endpointId}/replay", "*"),
    "ListAuditLogs": ("GET", "/audit-logs", None),
    "GetAuditLog": ("GET", "/audit-logs/{entryId}", None),
}

# RPCs of AdminService that are called as one of another service, by the names that they have here.
OF_EVERYBODY = {"ListAllOrders": "ListOrders", "ListAllWebhookEndpoints": "ListWebhookEndpoints"}

# What is answered to RenderReceipt.
DOCUMENTS = ("text/html", "application/pdf")


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is the resource or the problem, as JSON; `reason` is None for a good answer.

    Of a stream it is the first event, after which the stream is left.
    """

    code: str
    http: int | None
    body: Body
    headers: Mapping[str, str] = field(default_factory=dict)
    # As it was received, and the metadata of a native error's ErrorInfo.
    text: str = ""
    info: Mapping[str, str] = field(default_factory=dict)
    # Of what is no JSON.
    content: bytes = b""

    @property
    def reason(self) -> str | None:
        return self.body.get("reason")

    @property
    def faults(self) -> dict[str, str]:
        return {entry["field"]: entry["code"] for entry in self.body.get("errors", [])}

    def without_instance(self) -> Body:
        """A problem, less the one member that only REST has."""
        return {name: value for name, value in self.body.items() if name != "instance"}


class Door(Protocol):
    name: str

    async def call(self, rpc: str, request: Body, *, token: str | None, repeats_busy: bool = True) -> Answer: ...


async def repeat_while_busy(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """As the contract asks of clients: nothing was done, so the same is asked again, a few times."""
    answer = await call()
    for delay_seconds in BUSY_DELAYS_SECONDS:
        if answer.reason != "BUSY":
            break
        await asyncio.sleep(delay_seconds)
        answer = await call()
    return answer


class RestDoor:
    """HTTP/1.1 and JSON, through Envoy."""

    name = "REST"

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self.url = f"http://{address}"

    async def call(self, rpc: str, request: Body, *, token: str | None, repeats_busy: bool = True) -> Answer:
        once = partial(self._call_once, rpc, request, token)
        return await (repeat_while_busy(once) if repeats_busy else once())

    async def _call_once(self, rpc: str, request: Body, token: str | None) -> Answer:
        method, path, body_field = ROUTES[rpc]
        fields = dict(request)
        url = self.url + path.format_map(fields)
        for name in ("orderId", "paymentId", "entryId", "endpointId", "deliveryId"):
            if "{" + name + "}" in path:
                fields.pop(name)
        if body_field is None:
            return await self.send(method, url, token=token, query=fields)
        body = fields if body_field == "*" else fields.get(body_field)
        return await self.send(method, url, token=token, data=json.dumps(body).encode())

    async def send(
        self,
        method: str,
        url: str,
        *,
        token: str | None = None,
        data: bytes | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One HTTP request; `url` may be a path. A body is application/json unless `headers` says otherwise."""
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("authorization", f"Bearer {token}")
        if data is not None:
            sent.setdefault("content-type", "application/json")
        target = url if url.startswith("http") else self.url + url
        params = {name: str(value) for name, value in (query or {}).items()}
        LEDGER.sent(data)
        async with self._session.request(method, target, data=data, params=params, headers=sent) as response:
            is_stream = response.content_type == EVENT_STREAM
            content = (await anext(events_in(response))).data.encode() if is_stream else await response.read()
            LEDGER.received(content, b"\n".join(b": ".join(header) for header in response.raw_headers))
            if response.content_type in DOCUMENTS:
                return Answer("OK", response.status, {}, response.headers, content=content)
            text = content.decode()
            body = json.loads(text) if text else {}
            return Answer(_code_of(response.status, body), response.status, body, response.headers, text)

    @asynccontextmanager
    async def watch(self, order: str, *, token: str, after: int = 0) -> AsyncIterator[AsyncIterator[Body]]:
        """The events of an order, until it is left."""
        async with self.stream(f"/orders/{order}/events?afterSequence={after}", token=token) as response:
            yield _written_down(json.loads(event.data) async for event in events_in(response))

    @asynccontextmanager
    async def stream(
        self, path: str, *, token: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is read as it comes; asked for again while the service is busy."""
        sent = {"authorization": f"Bearer {token}"} | dict(headers or {})
        for_long = aiohttp.ClientTimeout(total=60)
        for delay_seconds in (*BUSY_DELAYS_SECONDS, None):
            async with self._session.get(self.url + path, headers=sent, timeout=for_long) as response:
                if response.status != 503 or delay_seconds is None:
                    yield response
                    return
            await asyncio.sleep(delay_seconds)

    async def send_raw(self, request: bytes, *, waits_seconds: float = 20) -> Answer:
        """Bytes on a connection of their own. `http` is None when it is closed, or left open, without an answer."""
        LEDGER.sent(request.partition(b"\r\n\r\n")[2])
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(request)
            await writer.drain()
            async with asyncio.timeout(waits_seconds):
                return await _read_answer(reader)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            return Answer("-", None, {})
        finally:
            writer.transport.abort()


async def _written_down(events: AsyncIterator[Body]) -> AsyncIterator[Body]:
    async for event in events:
        LEDGER.received(json.dumps(event).encode())
        yield event


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    """The first answer that is not interim (100 Continue)."""
    http = 100
    while http < 200:
        head = await reader.readuntil(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")[:-2]
        http = int(status.split(" ")[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    data = await reader.readexactly(int(headers.get("content-length", "0")))
    LEDGER.received(head, data)
    text = data.decode()
    body = json.loads(text) if "json" in headers.get("content-type", "") and text else {}
    return Answer(_code_of(http, body), http, body, headers, text)


class GrpcDoor:
    """Native gRPC, straight to the service or through Envoy."""

    name = "gRPC"

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._orders = OrderServiceStub(channel)
        self._payments = PaymentServiceStub(channel)
        self._admin = AdminServiceStub(channel)
        self._webhooks = WebhookServiceStub(channel)

    async def call(
        self,
        rpc: str,
        request: Body,
        *,
        token: str | None,
        timeout_seconds: float | None = 20,
        repeats_busy: bool = True,
    ) -> Answer:
        once = partial(self._call_once, rpc, request, token, timeout_seconds)
        return await (repeat_while_busy(once) if repeats_busy else once())

    async def _call_once(self, rpc: str, request: Body, token: str | None, timeout_seconds: float | None) -> Answer:
        rpc = "GetPayment" if rpc == "GetLatestPayment" else rpc
        metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        method = self._method(rpc)
        LEDGER.sent(request)
        call = method(to_message(rpc, request), metadata=metadata, timeout=timeout_seconds)
        try:
            answer = await (call.read() if isinstance(call, grpc.aio.UnaryStreamCall) else call)
        except grpc.aio.AioRpcError as error:
            return answer_of(error)
        headers = {key: str(value) for key, value in await call.initial_metadata()}
        call.cancel()
        LEDGER.received(answer.SerializeToString(), str(headers).encode())
        return Answer("OK", None, to_body(answer), headers, str(answer))

    @asynccontextmanager
    async def watch(self, order: str, *, token: str, after: int = 0) -> AsyncIterator[AsyncIterator[Body]]:
        """The events of an order, to the end of the stream or until it is left."""
        async with aclosing(self._events(order, token, after)) as events:
            yield events

    async def _events(self, order: str, token: str, after: int) -> AsyncGenerator[Body, None]:
        request = order_service_pb2.WatchOrderRequest(order_id=order, after_sequence=after)
        for delay_seconds in (*BUSY_DELAYS_SECONDS, None):
            call = self._orders.WatchOrder(request, metadata=(("authorization", f"Bearer {token}"),))
            try:
                async for event in _written_down(to_body(message) async for message in call):
                    yield event
            except grpc.aio.AioRpcError as error:
                if delay_seconds is None or answer_of(error).reason != "BUSY":
                    raise
            else:
                return
            finally:
                call.cancel()
            await asyncio.sleep(delay_seconds)

    def _method(self, rpc: str) -> Any:
        if rpc in OF_EVERYBODY:
            return getattr(self._admin, OF_EVERYBODY[rpc])
        stubs = (self._orders, self._payments, self._webhooks, self._admin)
        return next(getattr(stub, rpc) for stub in stubs if hasattr(stub, rpc))


def answer_of(error: grpc.aio.AioRpcError) -> Answer:
    """The Problem of an error, and a check that its ErrorInfo says the same. No details: an answer of Envoy's own."""
    headers = {key: str(value) for key, value in error.trailing_metadata() or () if not key.endswith("-bin")}
    status = rpc_status.from_call(error)
    details = json_format.MessageToJson(status, ensure_ascii=False) if status else ""
    text = f"{error.details()}\n{details}\n{headers}"
    LEDGER.received(text.encode(), status.SerializeToString() if status else b"")
    if status is None:
        return Answer(error.code().name, None, {}, headers, text)
    info, problem = ErrorInfo(), Problem()
    assert status.details[0].Unpack(info)
    assert status.details[-1].Unpack(problem)
    assert problem.reason == info.reason
    body = json_format.MessageToDict(problem, always_print_fields_with_no_presence=True)
    return Answer(error.code().name, problem.status, body, headers, text, dict(info.metadata))


def to_body(message: Any) -> Body:
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def to_message(rpc: str, request: Body) -> Any:
    name = f"AdminService{OF_EVERYBODY[rpc]}Request" if rpc in OF_EVERYBODY else f"{rpc}Request"
    modules = (order_service_pb2, payment_service_pb2, admin_service_pb2, webhook_service_pb2)
    return json_format.ParseDict(request, next(getattr(each, name) for each in modules if hasattr(each, name))())


def _code_of(status: int, body: Body) -> str:
    """The gRPC status behind a REST answer, by its reason: the table of edge/status.py, read backwards."""
    if status < 300:
        return "OK"
    for row in STATUS.values():
        if row.http == status and body.get("type") == f"urn:payorder:problem:{reason_to_type(row.reason)}":
            return row.code.name
    return "-"


def reason_to_type(reason: int) -> str:
    from payments.v1.error_reason_pb2 import ErrorReason  # noqa: PLC0415

    return ErrorReason.Name(reason).removeprefix("ERROR_REASON_").lower().replace("_", "-")
