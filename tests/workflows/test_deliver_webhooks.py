"""Deliveries as receivers see them: signed, at least once, again after a failure, and nobody waits for a neighbour."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from payorder.adapters.database.endpoint_store import DatabaseEndpoints
from payorder.adapters.database.engine import Database
from payorder.adapters.database.outbox import DatabaseOutbox
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.receivers import on_demand
from payorder.adapters.receivers.on_demand import ReceiversOnDemand
from payorder.adapters.receivers.rules import LIMITS, Rules
from payorder.adapters.signing import Ed25519Signer
from payorder.adapters.system import SystemClock
from payorder.domain.retry_schedule import ATTEMPTS_MAX
from payorder.domain.webhook import DeliveryState
from payorder.edge.event_bodies import JsonBodies
from payorder.ports.audit import CallRecord
from payorder.ports.endpoints import DeliveryFilter
from payorder.ports.outbox import DisabledEndpoint, Ended
from payorder.ports.store import PageRequest
from payorder.workflows.deliver_webhooks import DeliverWebhooks
from payorder.workflows.fan_out_events import FanOutEvents
from payorder.workflows.sign_webhook import SignWebhook
from support.records import by
from support.service import until
from support.webhooks import (
    SECRET,
    Received,
    Receiver,
    add_endpoint,
    attempts_of,
    box,
    deliveries_of,
    endpoint_row,
    execute,
    pay,
    receiving,
)

CLOSED = "http://127.0.0.1:1/"


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """What a replica runs beside its calls, and what it has said."""

    fan_out: FanOutEvents
    deliver: DeliverWebhooks
    dead: list[Ended]
    disabled: list[DisabledEndpoint]
    faults: list[BaseException]


@asynccontextmanager
async def dispatching(
    database: Database, *, sends_max: int = 64, stops: bool = True, shut_out: Container[str] = ()
) -> AsyncIterator[Dispatcher]:
    """With `stops` False it ends as a process does that is killed."""
    rules = Rules(allows_http=True, ports=None, networks=(ip_network("127.0.0.0/8"),))
    receivers = ReceiversOnDemand(rules, of_services=rules)
    dispatcher = dispatcher_of(database, receivers, sends_max, shut_out)
    loops = (dispatcher.fan_out, dispatcher.deliver)
    tasks = [asyncio.create_task(loop.run()) for loop in loops]
    try:
        yield dispatcher
    finally:
        if stops:
            for loop in loops:
                loop.stop()
            await asyncio.wait(tasks, timeout=20)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await receivers.close()


def dispatcher_of(
    database: Database, receivers: ReceiversOnDemand, sends_max: int, shut_out: Container[str]
) -> Dispatcher:
    outbox, clock, bodies = DatabaseOutbox(database), SystemClock(), JsonBodies(public_url="")
    dead: list[Ended] = []
    disabled: list[DisabledEndpoint] = []
    faults: list[BaseException] = []
    deliver = DeliverWebhooks(
        outbox=outbox,
        bodies=bodies,
        receivers=receivers,
        shut_out=shut_out,
        sign=SignWebhook(box=box(), signer=Ed25519Signer.generate(), clock=clock),
        clock=clock,
        every_seconds=0.1,
        sends_max=sends_max,
        on_dead=dead.append,
        on_disabled=disabled.append,
        on_fault=faults.append,
    )
    fan_out = FanOutEvents(
        outbox=outbox,
        bodies=bodies,
        every_seconds=0.1,
        on_deliveries=deliver.wake,
        on_set_aside=lambda _: None,
        on_fault=faults.append,
    )
    return Dispatcher(fan_out, deliver, dead, disabled, faults)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


async def settled(database: Database, *, count: int, state: str = "delivered") -> list[Any]:
    """All deliveries, once so many of them are in that state."""

    async def read() -> list[Any]:
        return await deliveries_of(database)

    return await until(read, lambda rows: count == sum(row.state == state for row in rows))


async def attempted(database: Database, count: int) -> list[Any]:
    return await until(lambda: attempts_of(database), lambda rows: len(rows) >= count)


def answering(status: int, **headers: str) -> Callable[[Received], web.StreamResponse]:
    return lambda _: web.Response(status=status, headers=headers)


async def test_a_paid_order_is_told_of_twice_signed(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    await add_endpoint(database, receiver.url)
    order, payment = await pay(store)
    async with dispatching(database):
        await settled(database, count=2)
    for received in receiver.received:
        Webhook(SECRET.reveal()).verify(
            received.body, {name.lower(): value for name, value in received.headers.items()}
        )
    told = {received.json["eventType"]: received.json for received in receiver.received}
    assert {"payment.succeeded", "order.statusChanged"} == set(told)
    assert (1, payment.id) == (
        told["payment.succeeded"]["sequence"],
        told["payment.succeeded"]["data"]["payment"]["id"],
    )
    assert (2, order.id) == (
        told["order.statusChanged"]["sequence"],
        told["order.statusChanged"]["data"]["order"]["id"],
    )
    assert {received.headers["webhook-id"] for received in receiver.received} == {
        received.json["eventId"] for received in receiver.received
    }


async def test_what_was_written_is_delivered_at_once_when_it_is_said(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    await add_endpoint(database, receiver.url)
    async with dispatching(database) as dispatcher:
        await pay(store)
        dispatcher.fan_out.wake()
        await settled(database, count=2)
    assert 2 == len(receiver.received)


@pytest.mark.parametrize("status", [300, 302, 404, 500, 503])
async def test_any_answer_but_2xx_is_a_failure_and_is_attempted_again(
    database: Database, store: DatabaseStore, receiver: Receiver, status: int
) -> None:
    await add_endpoint(database, receiver.url, event_types=["payment.succeeded"])
    receiver.answer = answering(status, location=receiver.url)
    await pay(store)
    async with dispatching(database):
        assert [(1, status // 100, False)] == [
            (row.number, row.status_class, row.delivered) for row in await attempted(database, 1)
        ]
        receiver.answer = answering(204)
        await execute(database, "UPDATE webhook_deliveries SET next_attempt_at = 0")
        await settled(database, count=1)
    first, second = receiver.received
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])


@pytest.mark.parametrize("status", [600, 999])
async def test_a_status_that_http_does_not_have_is_a_failure_and_harms_nobody_else(
    database: Database, store: DatabaseStore, receiver: Receiver, status: int
) -> None:
    odd = await add_endpoint(database, receiver.url + "/odd", event_types=["payment.succeeded"])
    await add_endpoint(database, receiver.url, event_types=["payment.succeeded"])
    receiver.answer = lambda received: web.Response(status=status if received.path == "/odd" else 204)
    await pay(store)
    async with dispatching(database) as dispatcher:
        rows = await settled(database, count=1)
        attempts = {row.delivery_id: row for row in await attempted(database, 2)}
    by_endpoint = {row.endpoint_id: attempts[row.id] for row in rows}
    assert (1, None, False) == (by_endpoint[odd].number, by_endpoint[odd].status_class, by_endpoint[odd].delivered)
    assert [] == dispatcher.faults
    assert 2 == len(receiver.received)


async def due_in_seconds(database: Database) -> float:
    (row,) = await deliveries_of(database)
    (attempt,) = await attempts_of(database)
    return float(row.next_attempt_at - attempt.at) / 1000


@pytest.mark.parametrize(
    ("asked", "least", "most"), [("", 5, 6), ("60", 60, 60), ("1", 5, 6), ("9999999", 86400, 86400)]
)
async def test_a_receiver_may_ask_for_more_time_than_the_schedule_gives_up_to_a_day(
    database: Database, store: DatabaseStore, receiver: Receiver, asked: str, least: float, most: float
) -> None:
    await add_endpoint(database, receiver.url, event_types=["payment.succeeded"])
    receiver.answer = answering(503, **({"retry-after": asked} if asked else {}))
    await pay(store)
    async with dispatching(database):
        await attempted(database, 1)
    assert least - 0.5 <= await due_in_seconds(database) <= most + 0.5


async def test_after_its_last_attempt_a_delivery_is_given_up(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    await add_endpoint(database, receiver.url, event_types=["payment.succeeded"])
    receiver.answer = answering(500)
    await pay(store)
    async with dispatching(database) as dispatcher:
        for number in range(1, ATTEMPTS_MAX + 1):
            await attempted(database, number)
            await execute(database, "UPDATE webhook_deliveries SET next_attempt_at = 0 WHERE state = 'pending'")
        (row,) = await settled(database, count=1, state="dead")
    assert (ATTEMPTS_MAX, [row.id]) == (row.attempts, [ended.delivery_id for ended in dispatcher.dead])
    assert list(range(1, ATTEMPTS_MAX + 1)) == sorted(attempt.number for attempt in await attempts_of(database))


async def test_an_endpoint_that_is_gone_is_told_so_and_gets_nothing_more(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    endpoint_id = await add_endpoint(database, receiver.url, event_types=["payment.succeeded"])
    receiver.answer = answering(410)
    await pay(store)
    async with dispatching(database) as dispatcher:
        await attempted(database, 1)
        await execute(database, "UPDATE webhook_deliveries SET next_attempt_at = 0")
        await pay(store)
        await until(lambda: endpoint_row(database, endpoint_id), lambda row: row.state == "disabled")
    assert [endpoint_id] == [disabled.id for disabled in dispatcher.disabled]
    assert "gone" == (await endpoint_row(database, endpoint_id)).disabled_because
    assert 1 == len(receiver.received)


async def test_a_callback_that_is_not_wanted_is_not_sent_again(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    placed, _ = await pay(store)
    await add_endpoint(database, receiver.url, order_id=placed.id, after_seq=0)
    receiver.answer = answering(410)
    async with dispatching(database):
        (row,) = await settled(database, count=1, state="dead")
    assert (1, 1) == (row.attempts, len(receiver.received))


async def test_what_was_given_up_is_sent_once_more_when_it_is_replayed(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    endpoint_id = await add_endpoint(database, receiver.url, event_types=["payment.succeeded"])
    receiver.answer = answering(500)
    await pay(store)
    async with dispatching(database) as dispatcher:
        await attempted(database, 1)
        again = "UPDATE webhook_deliveries SET attempts = :attempts, next_attempt_at = 0"
        await execute(database, again, attempts=ATTEMPTS_MAX)
        await settled(database, count=1, state="dead")
        endpoints = DatabaseEndpoints(database, bodies=JsonBodies(public_url=""), on_change=lambda *_: None)
        wanted, page = DeliveryFilter(endpoint_id, DeliveryState.DEAD), PageRequest(size=10, after=None)
        (dead,) = (await endpoints.find_deliveries(wanted, "alice", page)).deliveries
        call = CallRecord("WebhookService/ReplayDelivery", "done", by("alice"), "{}")
        await endpoints.replay_delivery(endpoint_id, dead.delivery.id, call)
        await attempted(database, 3)
        (row,) = await settled(database, count=1, state="dead")
    assert (dead.delivery.id, ATTEMPTS_MAX + 2, 3) == (row.id, row.attempts, len(receiver.received))
    assert [row.id] * 2 == [ended.delivery_id for ended in dispatcher.dead]


# Of a receiver that hangs: much longer than anything else takes, whatever the machine does.
GIVEN_UP_SECONDS = 120.0


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_demand, "LIMITS", replace(LIMITS, total_seconds=GIVEN_UP_SECONDS))


@pytest.mark.usefixtures("patient")
async def test_receivers_that_hang_delay_nobody_else(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    """Twenty of them, with as many deliveries as there are attempts at once."""
    async with hanging() as url:
        for _ in range(20):
            await add_endpoint(database, url)
        await add_endpoint(database, receiver.url)
        for _ in range(10):
            await pay(store)
        async with dispatching(database, stops=False):
            began = time.monotonic()
            await settled(database, count=20)
            # Nobody has waited for one of them.
            assert time.monotonic() - began < GIVEN_UP_SECONDS / 2
    assert 20 == len(receiver.received)


@asynccontextmanager
async def hanging() -> AsyncIterator[str]:
    """The URL of somebody who listens and never says a word."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def test_a_dispatcher_that_stops_hears_out_what_it_sends_and_gives_back_the_rest(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    await add_endpoint(database, receiver.url)
    for _ in range(40):
        await pay(store)
    async with dispatching(database):
        await until(lambda: _counted(receiver), lambda count: count >= 4)
    rows = await deliveries_of(database)
    assert len(receiver.received) == sum(row.state == "delivered" for row in rows)
    assert {("delivered", 1), ("pending", 0)} >= {(row.state, row.attempts) for row in rows}
    async with dispatching(database):
        await settled(database, count=80)
    assert 80 == len(receiver.received)


async def _counted(receiver: Receiver) -> int:
    return len(receiver.received)


async def test_what_a_dispatcher_had_when_it_died_another_sends_again_the_same(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    await add_endpoint(database, receiver.url, event_types=["payment.succeeded"])
    heard = asyncio.Event()
    answer = receiver.answer

    def interrupt(received: Received) -> web.StreamResponse:
        heard.set()
        return web.Response(status=200)

    receiver.answer = interrupt
    await pay(store)
    async with dispatching(database, stops=False):
        await heard.wait()
    receiver.answer = answer
    rows = await deliveries_of(database)
    if rows[0].state == "pending":  # It died between the answer and writing it down, as it mostly does.
        await execute(database, "UPDATE webhook_deliveries SET next_attempt_at = 0")
        async with dispatching(database):
            await settled(database, count=1)
    assert 1 == len({(received.headers["webhook-id"], received.body) for received in receiver.received})


async def test_a_secret_that_cannot_be_opened_is_reported_and_ends_nothing_else(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    await add_endpoint(database, receiver.url, event_types=["payment.succeeded"])
    await execute(database, "UPDATE webhook_endpoints SET secret = :sealed", sealed=b"with another key")
    await add_endpoint(database, receiver.url, event_types=["payment.succeeded"])
    await pay(store)
    async with dispatching(database) as dispatcher:
        await settled(database, count=1)
        await attempted(database, 2)
    assert [ValueError] == [type(fault) for fault in dispatcher.faults]
    assert 1 == len(receiver.received)


async def test_a_receiver_that_is_away_is_a_failure_without_an_answer(database: Database, store: DatabaseStore) -> None:
    await add_endpoint(database, CLOSED, event_types=["payment.succeeded"])
    await pay(store)
    async with dispatching(database):
        assert [(None, False)] == [(row.status_class, row.delivered) for row in await attempted(database, 1)]


async def test_an_endpoint_of_somebody_who_was_shut_out_is_sent_nothing_until_it_is_enabled_again(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    endpoint_id = await add_endpoint(database, receiver.url)
    await add_endpoint(database, receiver.url, owner=None)
    await pay(store)
    async with dispatching(database, shut_out={"alice"}) as dispatcher:
        await until(lambda: endpoint_row(database, endpoint_id), lambda row: row.state == "disabled")
        await settled(database, count=2)
    assert [(endpoint_id, "subject")] == [(disabled.id, disabled.because) for disabled in dispatcher.disabled]
    assert [("pending", 0)] * 2 == [
        (row.state, row.attempts) for row in await deliveries_of(database) if row.endpoint_id == endpoint_id
    ]
    await execute(database, "UPDATE webhook_endpoints SET state = 'enabled', disabled_because = NULL")
    async with dispatching(database):
        await settled(database, count=4)
    assert 4 == len(receiver.received)


async def test_a_callback_of_somebody_who_was_shut_out_is_never_made(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    placed, _ = await pay(store)
    await add_endpoint(database, receiver.url, order_id=placed.id, created_by="mallory", after_seq=0)
    async with dispatching(database, shut_out={"mallory"}) as dispatcher:
        (row,) = await settled(database, count=1, state="dead")
    assert ([row.id], 0) == ([ended.delivery_id for ended in dispatcher.dead], row.attempts)
    assert [] == receiver.received


@pytest.mark.usefixtures("patient")
async def test_callbacks_that_hang_delay_nobody_else(
    database: Database, store: DatabaseStore, receiver: Receiver
) -> None:
    """More of them than all dispatchers could ever hold."""
    orders = [await pay(store) for _ in range(60)]
    async with hanging() as url:
        for order, _ in orders:
            for _ in range(10):
                await add_endpoint(database, url, order_id=order.id, created_by="mallory", after_seq=0)
        async with dispatching(database, sends_max=8, stops=False):
            await until(lambda: deliveries_of(database), lambda rows: len(rows) >= 600)
            # By then everything hangs that may.
            await asyncio.sleep(2)
            began = time.monotonic()
            await add_endpoint(database, receiver.url)
            await pay(store)
            await settled(database, count=2)
            assert time.monotonic() - began < GIVEN_UP_SECONDS / 2
    assert 2 == len(receiver.received)
