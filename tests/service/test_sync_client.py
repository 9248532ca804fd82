"""A synchronous client, by the fixtures of pytest-grpc; the server runs on a loop of its own thread."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from payments.v1.order_service_pb2 import CreateOrderRequest, GetOrderRequest
from payments.v1.order_service_pb2_grpc import OrderServiceStub
from payments.v1.payment_service_pb2_grpc import PaymentServiceStub
from payorder.app import running
from payorder.local.issuer import Issuer
from support.doors import to_message
from support.requests import payment
from support.service import migrate, settings_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sync")


@pytest.fixture(scope="module")
def grpc_server(folder: Path) -> Iterator[str]:
    """Overrides the plugin's, which knows synchronous servers alone; its value is the address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack = AsyncExitStack()

    async def start() -> str:
        url = f"sqlite:///{folder / 'payorder.db'}"
        await migrate(url)
        app = await stack.enter_async_context(running(settings_of(folder, url)))
        return f"127.0.0.1:{app.port}"

    yield asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


@pytest.fixture(scope="module")
def grpc_addr(grpc_server: str) -> str:
    return grpc_server


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type[OrderServiceStub]:
    return OrderServiceStub


@pytest.fixture(scope="module")
def metadata(folder: Path) -> tuple[tuple[str, str], ...]:
    token = Issuer(folder / "issuer").token(subject="alice", scope="read:orders write:orders")
    return (("authorization", f"Bearer {token}"),)


def test_an_order_is_created_read_and_paid(
    grpc_stub: OrderServiceStub, grpc_channel: grpc.Channel, metadata: tuple[tuple[str, str], ...]
) -> None:
    order = grpc_stub.CreateOrder(CreateOrderRequest(total_amount="49.99", currency="GBP"), metadata=metadata)
    request = to_message("PayOrder", {"orderId": order.id, "payment": payment()})
    paid = PaymentServiceStub(grpc_channel).PayOrder(request, metadata=metadata, timeout=20)
    assert ("succeeded", "************4242") == (paid.status, paid.source.number)
    read = grpc_stub.GetOrder(GetOrderRequest(order_id=order.id), metadata=metadata)
    assert ("approved", paid.id) == (read.status, read.latest_payment_id)


def test_without_a_token_nothing_is_answered(grpc_stub: OrderServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        grpc_stub.CreateOrder(CreateOrderRequest(total_amount="49.99", currency="GBP"))
    assert grpc.StatusCode.UNAUTHENTICATED == refused.value.code()
