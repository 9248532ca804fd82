"""More payments than the database can take: the rest is refused at once, and what was let in succeeds."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from conftest import ENGINES, new_database
from payorder.local.postgres import EmbeddedPostgres
from support.doors import Answer
from support.requests import payment
from support.service import Service, serving, until
from support.sqlite import writer_of_another_process

FLOOD = 100
BACKLOG = 8
SMALL = {"database_pool_size": 2, "database_pool_timeout_seconds": 10, "backlog_max": BACKLOG}


@pytest.fixture(params=ENGINES)
async def database_url(request: pytest.FixtureRequest, tmp_path: Path, postgres: EmbeddedPostgres) -> str:
    return await new_database(request.param, tmp_path, postgres)


@asynccontextmanager
async def standing_still(database_url: str) -> AsyncIterator[None]:
    """Nobody can write a payment, and everybody can read."""
    if database_url.startswith("sqlite"):
        async with writer_of_another_process(database_url.removeprefix("sqlite:///")):
            yield
        return
    server = await asyncpg.connect(database_url)
    async with server.transaction():
        await server.execute("LOCK TABLE payments IN EXCLUSIVE MODE")
        yield
    await server.close()


async def pay(service: Service, order: str) -> Answer:
    request = {"orderId": order, "payment": payment()}
    return await service.grpc.call("PayOrder", request, token=service.token(), repeats_busy=False)


async def test_a_flood_is_refused_while_the_database_stands_still(database_url: str, tmp_path: Path) -> None:
    async with serving(tmp_path, database_url, **SMALL) as service:
        orders = [await service.new_order() for _ in range(FLOOD)]
        async with standing_still(database_url):
            asked = {asyncio.create_task(pay(service, order)): order for order in orders}
            answers = asyncio.as_completed(asked)
            refused = [await next(answers) for _ in range(FLOOD - BACKLOG)]
            # Every answer so far came without a word from the database; the service is well, and reads.
            assert HealthCheckResponse.SERVING == (await health_of(service)).status
            assert "placed" == (await service.read("GetOrder", orderId=orders[0]))["status"]
        assert {("UNAVAILABLE", 503, "BUSY", "1")} == {
            (answer.code, answer.http, answer.reason, answer.headers["retry-after"]) for answer in refused
        }
        admitted = [await answer for answer in answers]
        assert ["succeeded"] * BACKLOG == [answer.body["status"] for answer in admitted]
        # Each order was paid once or not at all, and one that was not can be paid now.
        paid = {order: paying.result().body.get("id") for paying, order in asked.items()}
        for order, payment_id in paid.items():
            assert ([payment_id] if payment_id else []) == await payments_of(service, order)
        again = await pay(service, next(order for order, payment_id in paid.items() if not payment_id))
        assert "succeeded" == again.body["status"]


async def test_before_the_claim_nobody_is_told_of_a_payment(database_url: str, tmp_path: Path) -> None:
    impatient = {"answer_within_seconds": 0.05, "database_pool_timeout_seconds": 0.3, "database_pool_size": 2}
    async with serving(tmp_path, database_url, **impatient) as service:
        orders = [await service.new_order() for _ in range(4)]
        async with standing_still(database_url):
            asked = [asyncio.create_task(pay(service, order)) for order in orders]
            refused = await next(asyncio.as_completed(asked))
        answers = [await each for each in asked]
        assert "BUSY" == refused.reason
        for order, answer in zip(orders, answers, strict=True):
            # Long after the time to answer: what is refused was never begun, and what was begun is told by its id.
            known = [answer.body["id"]] if answer.code == "OK" else []
            assert known == await payments_of(service, order)
            assert answer.code == "OK" or answer.reason == "BUSY"


async def test_payments_that_wait_for_the_processor_are_no_backlog(database_url: str, tmp_path: Path) -> None:
    # All of them are with it before the first is settled, which counts again.
    slow = {"processor_options": {"latency_seconds": "3"}}
    async with serving(tmp_path, database_url, **SMALL, **slow) as service:
        paying = []
        for _ in range(3 * BACKLOG):
            order = await service.new_order()
            paying.append(asyncio.create_task(pay(service, order)))
            await until(lambda order=order: payments_of(service, order), bool)
        answers = await asyncio.gather(*paying)
        assert Counter(succeeded=len(answers)) == Counter(answer.body["status"] for answer in answers)


async def health_of(service: Service) -> HealthCheckResponse:
    return await HealthStub(service.grpc.channel).Check(HealthCheckRequest(), timeout=20)


async def payments_of(service: Service, order: str) -> list[str]:
    return [each["id"] for each in (await service.read("ListPayments", orderId=order))["data"]]
