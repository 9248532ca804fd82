"""Whatever a receiver does: an answer in time, little heard of it, its connection ended, and no harm done."""

import asyncio
import gzip
import tracemalloc
from dataclasses import replace

import pytest

from payorder.adapters.receivers.rules import LIMITS, Limits
from payorder.ports.receivers import Answer
from support.hostile import HOSTILE, MEBIBYTE, OK, Receiver, Visit, answering, receiver
from support.receivers import BODY, HASTY, HEADERS, PATIENT, receivers

GUARD_SECONDS = 100.0

REDIRECTS = (301, 302, 303, 307, 308)


async def answer_of(here: Receiver, limits=PATIENT) -> Answer:
    async with asyncio.timeout(GUARD_SECONDS), receivers(limits) as adapter:
        return await adapter.send(f"http://127.0.0.1:{here.port}/hook", HEADERS, BODY)


def test_a_receiver_has_three_seconds_to_be_there_and_fifteen_in_all():
    assert Limits(connect_seconds=3.0, total_seconds=15.0, connection_seconds=60.0) == LIMITS


@pytest.fixture
def memory():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_receiver_gets_no_more_than_its_time_and_its_bytes(name):
    behaviour, expected = HOSTILE[name]
    async with receiver(behaviour) as here, asyncio.timeout(GUARD_SECONDS):
        answer = await answer_of(here, HASTY)
        if answer.status not in expected:
            # A busy machine is no proof: nothing that is to be heard takes so long.
            answer = await answer_of(here, PATIENT)
        await here.until(lambda here: here.connections_ended == here.connections)
    assert answer.status in expected
    assert answer.retry_after_seconds is None
    assert here.bytes_said < 32 * MEBIBYTE
    assert tracemalloc.get_traced_memory()[1] < 4 * MEBIBYTE


async def test_nobody_listening_is_no_answer():
    async with receiver(answering(OK)) as here:
        pass
    assert await answer_of(here) == Answer(None)


async def test_an_address_that_says_nothing_is_no_answer():
    """A backlog that is full drops what comes: neither a connection nor a refusal."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, backlog=1, start_serving=False)
    port = server.sockets[0].getsockname()[1]
    async with receivers(HASTY) as adapter:
        assert await adapter.send(f"http://127.0.0.1:{port}/", HEADERS, BODY) == Answer(None)
    server.close()


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("to", ["loopback", "file", "itself"])
async def test_a_redirect_is_an_answer_and_leads_nowhere(status, to):
    async with receiver(answering(OK)) as trap, asyncio.timeout(GUARD_SECONDS):
        location = {"loopback": f"http://127.0.0.1:{trap.port}/", "file": "file:///etc/passwd", "itself": "/hook"}[to]
        text = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        async with receiver(answering(text)) as here:
            answer = await answer_of(here)
    assert answer == Answer(status)
    assert 1 == len(here.requests)
    assert 0 == trap.connections


@pytest.mark.parametrize("status", [200, 202, 204, 400, 410, 429, 500, 599])
async def test_the_status_is_told_as_it_is(status):
    text = f"HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n".encode()
    async with receiver(answering(text)) as here:
        assert await answer_of(here) == Answer(status)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("9" * 400, 999999999.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00", None),
        ("\xb2", None),
    ],
)
async def test_when_to_come_again_is_told_if_it_is_said_as_it_should_be(text, seconds):
    head = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: " + text.encode() + b"\r\n\r\n"
    async with receiver(answering(head)) as here:
        assert await answer_of(here) == Answer(503, seconds)


async def test_when_to_come_again_may_be_a_date():
    head = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: Thu, 01 Jan 2099 00:00:00 GMT\r\n\r\n"
    async with receiver(answering(head)) as here:
        answer = await answer_of(here)
    assert answer.retry_after_seconds is not None
    assert answer.retry_after_seconds > 24 * 60 * 60


async def test_a_connection_is_used_again_after_a_short_answer():
    async with receiver(answering(OK)) as here, receivers() as adapter:
        for _ in range(3):
            assert await adapter.send(f"http://127.0.0.1:{here.port}/", HEADERS, BODY) == Answer(200)
    assert (1, 3) == (here.connections, len(here.requests))


async def test_a_connection_is_not_used_again_after_a_long_answer():
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100000)
    async with receiver(answering(long)) as here, receivers() as adapter:
        for _ in range(2):
            assert await adapter.send(f"http://127.0.0.1:{here.port}/", HEADERS, BODY) == Answer(200)
    assert (2, 2) == (here.connections, len(here.requests))


async def test_a_compressed_answer_stays_as_small_as_it_is():
    """Inflated, it would be too long for the connection to be used again."""
    small = gzip.compress(bytes(MEBIBYTE // 2))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(small)
    async with receiver(answering(head + small)) as here, receivers() as adapter:
        for _ in range(2):
            assert await adapter.send(f"http://127.0.0.1:{here.port}/", HEADERS, BODY) == Answer(200)
    assert (1, 2) == (here.connections, len(here.requests))


async def test_a_connection_does_not_become_old():
    """Its address was vetted when it was made, so now and then it is vetted again."""
    limits = replace(PATIENT, connection_seconds=0.2)
    async with receiver(answering(OK)) as here, receivers(limits) as adapter:
        assert await adapter.send(f"http://127.0.0.1:{here.port}/", HEADERS, BODY) == Answer(200)
        await asyncio.sleep(limits.connection_seconds)
        assert await adapter.send(f"http://127.0.0.1:{here.port}/", HEADERS, BODY) == Answer(200)
    assert here.connections > 1


async def hanging_at_some_paths(visit: Visit) -> None:
    head = await visit.request()
    if head.startswith(b"POST /hang "):
        await visit.wait()
    await visit.say(OK)


async def test_one_receiver_that_hangs_holds_up_no_other():
    async with (
        receiver(hanging_at_some_paths) as here,
        receivers() as adapter,
        asyncio.timeout(GUARD_SECONDS),
    ):
        url = f"http://127.0.0.1:{here.port}"
        stuck = [asyncio.create_task(adapter.send(f"{url}/hang", HEADERS, BODY)) for _ in range(150)]
        await here.until(lambda here: len(here.requests) == 150)
        # At one host, too, where many may have a path of their own.
        assert await adapter.send(f"{url}/", HEADERS, BODY) == Answer(200)
        assert not any(task.done() for task in stuck)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
