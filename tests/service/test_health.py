"""Health (grpc.health.v1): per service, by question and by watch, with the database there and away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from conftest import new_database
from payorder.local.postgres import EmbeddedPostgres
from support.cut import Wire, wire_to
from support.requests import payment
from support.service import Service, migrate, serving, until

Status = HealthCheckResponse.ServingStatus
SERVING, NOT_SERVING, SERVICE_UNKNOWN = Status.SERVING, Status.NOT_SERVING, Status.SERVICE_UNKNOWN

SERVICES = [
    "",
    "payments.v1.OrderService",
    "payments.v1.PaymentService",
    "payments.v1.AdminService",
    "payments.v1.WebhookService",
]
UNKNOWN = ["payments.v1.RefundService", "payments.v1.orderservice", "grpc.health.v1.Health2", "*", "x" * 1000]


async def health_of(service: Service, name: str) -> int:
    return (await HealthStub(service.grpc.channel).Check(HealthCheckRequest(service=name), timeout=20)).status


@pytest.mark.parametrize("name", SERVICES)
async def test_every_service_is_serving_without_a_token(service: Service, name: str) -> None:
    assert SERVING == await health_of(service, name)


@pytest.mark.parametrize("name", UNKNOWN)
async def test_an_unknown_service_is_not_found(service: Service, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await health_of(service, name)
    assert grpc.StatusCode.NOT_FOUND == refused.value.code()


@pytest.mark.parametrize(("name", "expected"), [*((name, SERVING) for name in SERVICES), ("nothing", SERVICE_UNKNOWN)])
async def test_a_watch_begins_with_the_status_now(service: Service, name: str, expected: int) -> None:
    watch = HealthStub(service.grpc.channel).Watch(HealthCheckRequest(service=name), timeout=20)
    assert expected == (await watch.read()).status
    watch.cancel()


@pytest.fixture
async def wired(postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncIterator[tuple[Wire, Service]]:
    """A service on PostgreSQL, over a wire that can be cut."""
    url = await new_database("postgresql", tmp_path, postgres)
    name = url.partition("?")[0].rpartition("/")[2]
    async with wire_to(postgres, name, tmp_path) as (wire, wired_url), serving(tmp_path, wired_url) as service:
        yield wire, service


async def test_health_follows_the_database(wired: tuple[Wire, Service]) -> None:
    wire, service = wired
    watches = [HealthStub(service.grpc.channel).Watch(HealthCheckRequest(service=name)) for name in SERVICES]
    assert [SERVING] * len(SERVICES) == [(await watch.read()).status for watch in watches]
    wire.cut()
    assert [NOT_SERVING] * len(SERVICES) == [(await watch.read()).status for watch in watches]
    assert NOT_SERVING == await health_of(service, "")
    refused = await service.grpc.call("ListOrders", {}, token=service.token(), repeats_busy=False)
    assert ("UNAVAILABLE", "BUSY", "1") == (refused.code, refused.reason, refused.headers["retry-after"])
    wire.mend()
    assert [SERVING] * len(SERVICES) == [(await watch.read()).status for watch in watches]
    assert [] == (await service.read("ListOrders"))["data"]
    for watch in watches:
        watch.cancel()


async def test_an_order_whose_commit_was_not_heard_is_not_said_to_be_nothing(wired: tuple[Wire, Service]) -> None:
    wire, service = wired
    wire.lose_the_commit_of("INSERT INTO orders")
    answer = await service.grpc.call("CreateOrder", {"totalAmount": "49.99", "currency": "GBP"}, token=service.token())
    assert ("INTERNAL", "INTERNAL") == (answer.code, answer.reason)
    assert 1 == len((await service.read("ListOrders"))["data"])


async def test_a_payment_whose_claim_was_not_heard_is_made(wired: tuple[Wire, Service]) -> None:
    wire, service = wired
    order = await service.new_order()
    wire.lose_the_commit_of("INSERT INTO payments")
    answer = await service.grpc.call("PayOrder", {"orderId": order, "payment": payment()}, token=service.token())
    assert ("OK", "succeeded") == (answer.code, answer.body["status"])


async def test_a_charge_whose_database_has_gone_is_processing_and_then_written(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    url = await new_database("postgresql", tmp_path, postgres)
    name = url.partition("?")[0].rpartition("/")[2]
    slow = {"processor_options": {"latency_seconds": "0.3"}, "answer_within_seconds": 1}
    async with wire_to(postgres, name, tmp_path) as (wire, wired_url), serving(tmp_path, wired_url, **slow) as service:
        order = await service.new_order()
        request = {"orderId": order, "payment": payment()}
        paying = asyncio.create_task(service.grpc.call("PayOrder", request, token=service.token()))
        await until(lambda: service.read("ListPayments", orderId=order), lambda page: bool(page["data"]))
        wire.cut()
        answer = await paying
        assert ("OK", "processing") == (answer.code, answer.body["status"])
        wire.mend()
        # What was connected before the cut is found out to be broken once, and then replaced.
        await until(lambda: service.grpc.call("ListOrders", {}, token=service.token()), lambda seen: seen.code == "OK")
        paid = await until(
            lambda: service.read("GetLatestPayment", orderId=order), lambda paid: paid["status"] != "processing"
        )
        assert "succeeded" == paid["status"]


async def test_a_service_without_a_schema_is_not_serving_until_it_is_migrated(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'payorder.db'}"
    async with serving(tmp_path, url, migrates=False) as service:
        assert NOT_SERVING == await health_of(service, "")
        await migrate(url)
        assert SERVING == await until(lambda: health_of(service, ""), lambda status: status == SERVING)


async def test_a_watcher_is_told_of_the_stop_and_does_not_delay_it(tmp_path: Path) -> None:
    seen: list[int] = []
    # Delayed, it would take ten minutes.
    async with asyncio.timeout(60), grpc_channel_of_its_own() as open_channel:
        async with serving(tmp_path, f"sqlite:///{tmp_path / 'payorder.db'}", drain_seconds=600) as service:
            watch = HealthStub(open_channel(service.address)).Watch(HealthCheckRequest())
            seen.append((await watch.read()).status)
        seen.append((await watch.read()).status)
    assert [SERVING, NOT_SERVING] == seen


class grpc_channel_of_its_own:  # noqa: N801 - reads as a statement where it is used
    """A channel that stays open when the service has stopped."""

    async def __aenter__(self) -> Self:
        return self

    def __call__(self, address: str) -> grpc.aio.Channel:
        self._channel = grpc.aio.insecure_channel(address)
        return self._channel

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
