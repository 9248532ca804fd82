"""One call in each protocol, its request made beforehand but for the subject, and its answer checked."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from uuid import uuid4

import aiohttp
import grpc
import httpx2

from bench.load.plan import Plan
from payments.v1.order_service_pb2 import GetOrderRequest, ListOrdersRequest, ListOrdersResponse
from payments.v1.payment_pb2 import PaymentDetails
from payments.v1.payment_service_pb2 import PayOrderRequest
from payments.v1.source_pb2 import PaymentSource

Call = Callable[[str], Awaitable[None]]

AMOUNT, AMOUNT_MINOR, CURRENCY = "49.99", 4999, "GBP"
PAGE_SIZE = 20
SOURCE = {
    "object": "card",
    "name": "J. Doe",
    "number": "4242424242424242",
    "cvc": "123",
    "expMonth": 12,
    "expYear": 2035,
    "addressLine1": "123 Fake Street",
    "addressLine2": "4th Floor",
    "addressCity": "London",
    "addressCountry": "gb",
    "addressPostCode": "N12 9XX",
}
_BODY = json.dumps({"amount": AMOUNT, "currency": CURRENCY, "source": SOURCE}).encode()
_TIMEOUT_SECONDS = 60
_SERVICES = {"PayOrder": "PaymentService", "GetOrder": "OrderService", "ListOrders": "OrderService"}


class WrongAnswer(Exception):
    """Not what was to come; a benchmark of wrong answers is none."""


@asynccontextmanager
async def calling(plan: Plan) -> AsyncIterator[Call]:
    opened = {"grpc": _grpc, "http1": _http1, "http2": _http2}[plan.protocol]
    async with opened(plan) as call:
        yield call


@asynccontextmanager
async def _grpc(plan: Plan) -> AsyncIterator[Call]:
    """Over several connections, because each has its limit of calls at a time, and one thread reads each."""
    method = f"/payments.v1.{_SERVICES[plan.method]}/{plan.method}"
    metadata = cycle([(("authorization", f"Bearer {token}"),) for token in plan.tokens])
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(_channel(plan.address)) for _ in range(plan.connections)]
        stubs = cycle([channel.unary_unary(method) for channel in channels])
        request_of = _request_maker(plan.method)

        async def call(subject: str) -> None:
            sent = (*next(metadata), ("idempotency-key", str(uuid4()))) if plan.has_keys else next(metadata)
            answer = await next(stubs)(request_of(subject), metadata=sent, timeout=_TIMEOUT_SECONDS)
            _check(plan.method, subject, answer)

        yield call


def _channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


def _request_maker(method: str) -> Callable[[str], bytes]:
    if method == "ListOrders":
        return lambda token: ListOrdersRequest(page_size=PAGE_SIZE, page_token=token).SerializeToString()
    if method == "GetOrder":
        return lambda order_id: GetOrderRequest(order_id=order_id).SerializeToString()
    placeholder = "00000000-0000-0000-0000-000000000000"
    request = PayOrderRequest(order_id=placeholder, payment=_details()).SerializeToString()
    return lambda order_id: request.replace(placeholder.encode(), order_id.encode())


def _details() -> PaymentDetails:
    source = PaymentSource(**{_snake(name): value for name, value in SOURCE.items()})
    return PaymentDetails(amount=AMOUNT, currency=CURRENCY, source=source)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _check(method: str, subject: str, answer: bytes) -> None:
    match method:
        case "PayOrder":
            is_right = b"succeeded" in answer
        case "GetOrder":
            is_right = subject.encode() in answer
        case _:
            is_right = len(ListOrdersResponse.FromString(answer).data) == PAGE_SIZE
    if not is_right:
        raise WrongAnswer(f"{method} answered {answer!r}")


@asynccontextmanager
async def _http1(plan: Plan) -> AsyncIterator[Call]:
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(connector=connector, headers=_headers(plan), timeout=timeout) as session:

        async def call(subject: str) -> None:
            url = f"http://{plan.address}/orders/{subject}/payment"
            async with session.post(url, data=_BODY) as answer:
                _check_paid(answer.status, await answer.read())

        yield call


@asynccontextmanager
async def _http2(plan: Plan) -> AsyncIterator[Call]:
    async with httpx2.AsyncClient(http1=False, http2=True, headers=_headers(plan), timeout=_TIMEOUT_SECONDS) as client:

        async def call(subject: str) -> None:
            answer = await client.post(f"http://{plan.address}/orders/{subject}/payment", content=_BODY)
            _check_paid(answer.status_code, answer.content)

        yield call


def _headers(plan: Plan) -> dict[str, str]:
    return {"authorization": f"Bearer {plan.tokens[0]}", "content-type": "application/json"}


def _check_paid(status: int, body: bytes) -> None:
    if status != 201 or b'"status":"succeeded"' not in body:
        raise WrongAnswer(f"PayOrder answered {status} {body!r}")
