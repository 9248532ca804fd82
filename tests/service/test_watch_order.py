"""Streams of events: how they end, how many there may be, and how they hear of what another process has written."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

from conftest import NewMigrated
from service.conftest import Serve
from support.doors import Answer, Body, GrpcDoor, answer_of
from support.requests import DECLINED, payment
from support.service import Service, serving, until

# Where the engine does not matter.
ON_SQLITE = pytest.mark.parametrize("serve", ["sqlite"], indirect=True)


async def pay(service: Service, order: str, **changes: Any) -> None:
    request = {"orderId": order, "payment": payment(**changes)}
    answer = await service.grpc.call("PayOrder", request, token=service.token())
    assert answer.code in ("OK", "FAILED_PRECONDITION")


async def all_of(
    service: Service, order: str, *, after: int = 0, token: str | None = None
) -> tuple[list[int], Answer | None]:
    """The numbers of the events of a stream that ends, and the error, if it ended with one."""
    async with service.grpc.watch(order, token=token or service.token(), after=after) as events:
        return await rest_of(events)


async def rest_of(events: AsyncIterator[Body]) -> tuple[list[int], Answer | None]:
    found: list[int] = []
    try:
        async with asyncio.timeout(20):
            async for event in events:
                found.append(event["sequence"])  # noqa: PERF401 - what came before the error is wanted too
    except grpc.aio.AioRpcError as error:
        return found, answer_of(error)
    return found, None


async def next_of(events: AsyncIterator[Body]) -> int:
    async with asyncio.timeout(20):
        return int((await anext(events))["sequence"])


async def test_a_stream_ends_well_after_its_life_and_is_gone_on_with(serve: Serve) -> None:
    async with serve(watch_life_seconds=0.3) as service:
        order = await service.new_order()
        await pay(service, order)
        assert ([1, 2], None) == await until(lambda: all_of(service, order), lambda found: len(found[0]) == 2)
        await service.grpc.call("CancelOrder", {"orderId": order}, token=service.token())
        assert ([3, 4], None) == await until(lambda: all_of(service, order, after=2), lambda found: len(found[0]) == 2)


async def test_streams_end_well_when_the_service_stops_and_hold_up_nobody(serve: Serve) -> None:
    async with AsyncExitStack() as kept, AsyncExitStack() as running:
        service = await running.enter_async_context(serve(drain_seconds=600))
        channel = await kept.enter_async_context(grpc.aio.insecure_channel(service.address))
        order = await service.new_order()
        await pay(service, order)
        events = await kept.enter_async_context(GrpcDoor(channel).watch(order, token=service.token()))
        assert [1, 2] == [await next_of(events) for _ in range(2)]
        # Held up, the test would take ten minutes.
        async with asyncio.timeout(30):
            stopping = asyncio.create_task(running.aclose())
            assert ([], None) == await rest_of(events)
            await stopping


@ON_SQLITE
async def test_a_stream_ends_with_the_token(serve: Serve) -> None:
    async with serve() as service:
        order = await service.new_order()
        await pay(service, order)
        short = service.issuer.token(subject="alice", scope="read:orders", seconds=2)
        found, error = await all_of(service, order, token=short)
        assert error
        assert ([1, 2], "UNAUTHENTICATED", "UNAUTHENTICATED") == (found, error.code, error.reason)


@pytest.fixture
def disabled(tmp_path: Path) -> Path:
    path = tmp_path / "disabled"
    path.touch()
    return path


@ON_SQLITE
async def test_a_quiet_stream_ends_soon_after_its_subject_is_disabled(serve: Serve, disabled: Path) -> None:
    async with serve(disabled_subjects=disabled) as service:
        order = await service.new_order()
        await pay(service, order)
        async with service.grpc.watch(order, token=service.token(), after=1) as events:
            assert 2 == await next_of(events)
            await asyncio.to_thread(disabled.write_text, "alice\n")
            assert ([], await read_by(service, "alice", order)) == await rest_of(events)


@ON_SQLITE
async def test_whose_subject_is_disabled_hears_of_nothing_more_and_a_service_still_of_its_orders(
    serve: Serve, disabled: Path
) -> None:
    async with serve(disabled_subjects=disabled) as service, AsyncExitStack() as left:
        order = await service.new_order()
        await pay(service, order, number=DECLINED)
        trusted = service.token("shop", "read:orders write:orders act:any-owner")
        tokens = (service.token(), trusted)
        alices, shops = [await left.enter_async_context(service.grpc.watch(order, token=token)) for token in tokens]
        assert [1, 1] == [await next_of(events) for events in (alices, shops)]
        await asyncio.to_thread(disabled.write_text, "alice\n")
        paid = await service.grpc.call("PayOrder", {"orderId": order, "payment": payment()}, token=trusted)
        assert "OK" == paid.code
        assert ([], await read_by(service, "alice", order)) == await rest_of(alices)
        # As when it is read: who asks counts, and not whose it is.
        assert [2, 3] == [await next_of(shops) for _ in range(2)]
        assert "OK" == (await service.grpc.call("GetOrder", {"orderId": order}, token=trusted)).code


async def read_by(service: Service, subject: str, order: str) -> Answer:
    return await service.grpc.call("GetOrder", {"orderId": order}, token=service.token(subject))


@ON_SQLITE
async def test_as_many_streams_are_open_as_may_be_and_other_calls_go_on(serve: Serve) -> None:
    async with serve(watches_max=3, watches_per_caller_max=2) as service, AsyncExitStack() as left:
        order = await service.new_order()
        await pay(service, order)
        service_token = service.token("shop", "read:orders act:any-owner")
        for token in (service.token(), service.token(), service_token):
            await left.enter_async_context(open_watch(service, order, token))
        # The first is one too many for alice, the second for everybody.
        for token in (service.token(), service_token):
            refused = await watch_once(service, order, token)
            assert ("RESOURCE_EXHAUSTED", 429, "WATCH_LIMIT_REACHED", "5") == (
                *(refused.code, refused.http, refused.reason),
                refused.headers["retry-after"],
            )
        await pay(service, await service.new_order())
        await left.aclose()
        again = await until(lambda: watch_once(service, order, service.token()), lambda answer: answer.code == "OK")
        assert "OK" == again.code


@ON_SQLITE
async def test_one_caller_cannot_take_the_streams_of_all(serve: Serve) -> None:
    async with serve(watches_max=3, watches_per_caller_max=1) as service:
        order = await service.new_order()
        await pay(service, order)
        async with open_watch(service, order, service.token()):
            assert "RESOURCE_EXHAUSTED" == (await watch_once(service, order, service.token())).code
            other = service.token("shop", "read:orders act:any-owner")
            assert "OK" == (await watch_once(service, order, other)).code


async def watch_once(service: Service, order: str, token: str) -> Answer:
    return await service.grpc.call("WatchOrder", {"orderId": order}, token=token)


@asynccontextmanager
async def open_watch(service: Service, order: str, token: str) -> AsyncIterator[None]:
    async with service.grpc.watch(order, token=token) as events:
        await anext(events)
        yield


async def test_nothing_is_left_out_and_nothing_comes_twice_while_much_happens(serve: Serve) -> None:
    tries = 12
    async with serve(watch_poll_seconds=60) as service:
        order = await service.new_order()
        watchers = [asyncio.create_task(events_until(service, order, after, tries)) for after in range(6)]
        for number in range(tries):
            await pay(service, order, number=DECLINED)
            if number % 3 == 0:
                watchers.append(asyncio.create_task(events_until(service, order, number // 2, tries)))
        found = await asyncio.gather(*watchers)
    starts = [*range(6), *(number // 2 for number in range(0, tries, 3))]
    assert [list(range(after + 1, tries + 1)) for after in starts] == found


async def events_until(service: Service, order: str, after: int, last: int) -> list[int]:
    found: list[int] = []
    async with service.grpc.watch(order, token=service.token(), after=after) as events, asyncio.timeout(30):
        while not found or found[-1] < last:
            found.append((await anext(events))["sequence"])
    return found


async def test_a_replica_hears_by_polling_of_what_another_has_written(serve: Serve) -> None:
    async with serve(watch_poll_seconds=0.2) as one, serve() as other:
        order = await one.new_order()
        async with one.grpc.watch(order, token=one.token()) as events:
            await pay(other, order)
            assert [1, 2] == [await next_of(events) for _ in range(2)]
            # By now it waits.
            await other.grpc.call("CancelOrder", {"orderId": order}, token=other.token())
            assert [3, 4] == [await next_of(events) for _ in range(2)]


@pytest.fixture
async def postgresql_url(tmp_path: Path, new_migrated: NewMigrated) -> str:
    return await new_migrated("postgresql", tmp_path)


async def test_a_replica_hears_by_notification_of_what_another_has_written(postgresql_url: str, tmp_path: Path) -> None:
    async with two_that_do_not_poll(postgresql_url, tmp_path) as (one, other), asking(postgresql_url) as ask:
        await until(lambda: listeners(ask), lambda found: len(found) == 2)
        order = await one.new_order()
        async with one.grpc.watch(order, token=one.token()) as events:
            reading = asyncio.create_task(next_of(events))
            await pay(other, order)
            assert 1 == await reading


async def test_whoever_listens_listens_again_when_the_database_has_cut_it_off(
    postgresql_url: str, tmp_path: Path
) -> None:
    async with two_that_do_not_poll(postgresql_url, tmp_path) as (one, other), asking(postgresql_url) as ask:
        before = await until(lambda: listeners(ask), lambda found: len(found) == 2)
        order = await one.new_order()
        await ask.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", list(before))
        await until(lambda: listeners(ask), lambda found: len(found - before) == 2)
        async with one.grpc.watch(order, token=one.token()) as events:
            reading = asyncio.create_task(next_of(events))
            await pay(other, order)
            assert 1 == await reading


@asynccontextmanager
async def two_that_do_not_poll(url: str, folder: Path) -> AsyncIterator[tuple[Service, Service]]:
    async with (
        serving(folder, url, migrates=False, watch_poll_seconds=60) as one,
        serving(folder, url, migrates=False, watch_poll_seconds=60) as other,
    ):
        yield one, other


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def listeners(connection: Any) -> set[int]:
    """Process ids of the connections of this database that listen."""
    of_database = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    return {row["pid"] for row in await connection.fetch(of_database)}
