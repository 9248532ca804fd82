"""Receivers of webhooks as bad as they get, on real sockets."""

import asyncio
import gzip
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MEBIBYTE = 1024 * 1024


@dataclass
class Receiver:
    """`connections` counts all that reached it, `requests` are the heads that it read."""

    port: int = 0
    connections: int = 0
    connections_ended: int = 0
    requests: list[bytes] = field(default_factory=list)
    bytes_said: int = 0
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, predicate: Callable[["Receiver"], bool]) -> None:
        async with self.news:
            await self.news.wait_for(lambda: predicate(self))

    async def tell(self) -> None:
        async with self.news:
            self.news.notify_all()


class Visit:
    """One connection, as its receiver sees it."""

    def __init__(self, receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._receiver, self._reader, self._writer = receiver, reader, writer

    async def request(self) -> bytes:
        """The head of the next request, with its body read too."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        await self._reader.readexactly(length)
        self._receiver.requests.append(head)
        await self._receiver.tell()
        return head

    async def say(self, text: bytes) -> None:
        self._writer.write(text)
        await self._writer.drain()
        self._receiver.bytes_said += len(text)

    async def wait(self) -> None:
        """Until the other side ends it."""
        await self._reader.read()

    def reset(self) -> None:
        """An RST instead of a FIN."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Behaviour = Callable[[Visit], Awaitable[None]]


@asynccontextmanager
async def receiver(
    behaviour: Behaviour, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    here, visits = Receiver(), set[asyncio.Task[None]]()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.connections += 1
        try:
            await behaviour(Visit(here, reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            here.connections_ended += 1
            await here.tell()

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(meet(reader, writer))
        visits.add(task)
        task.add_done_callback(visits.discard)

    server = await asyncio.start_server(on_connection, host, port, ssl=tls)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
        for task in tuple(visits):
            task.cancel()
        await asyncio.gather(*visits, return_exceptions=True)


def answering(text: bytes) -> Behaviour:
    """To every request on the connection."""

    async def behave(visit: Visit) -> None:
        while True:
            await visit.request()
            await visit.say(text)

    return behave


def saying(text: bytes) -> Behaviour:
    """Once, and then nothing more, with the connection open."""

    async def behave(visit: Visit) -> None:
        await visit.request()
        await visit.say(text)
        await visit.wait()

    return behave


def hanging_up_after(text: bytes) -> Behaviour:
    async def behave(visit: Visit) -> None:
        await visit.request()
        await visit.say(text)

    return behave


def resetting_after(text: bytes) -> Behaviour:
    async def behave(visit: Visit) -> None:
        await visit.request()
        await visit.say(text)
        visit.reset()

    return behave


def dripping(begin: bytes, drop: bytes) -> Behaviour:
    """`drop` again and again, slowly."""

    async def behave(visit: Visit) -> None:
        await visit.request()
        await visit.say(begin)
        while True:
            await visit.say(drop)
            await asyncio.sleep(0.02)

    return behave


def flooding(begin: bytes, flood: bytes) -> Behaviour:
    """`flood` for ever, as fast as it is taken."""

    async def behave(visit: Visit) -> None:
        await visit.request()
        await visit.say(begin)
        while True:
            await visit.say(flood)

    return behave


async def reset_at_once(visit: Visit) -> None:
    visit.reset()


async def hang_at_once(visit: Visit) -> None:
    await visit.wait()


async def answer_at_once(visit: Visit) -> None:
    await visit.say(OK)
    await visit.wait()


def _headers(*lines: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *lines, b"\r\n"))


def _garbage(seed: int) -> bytes:
    return random.Random(seed).randbytes(2000)  # noqa: S311 - garbage needs no secrecy


_CHUNKED = _headers(b"Transfer-Encoding: chunked")
_CHUNK = b"10000\r\n" + bytes(0x10000) + b"\r\n"
_BOMB = gzip.compress(bytes(16 * MEBIBYTE))

# What is learned of each: the status, when the head of an answer was whole, and otherwise nothing. Where the fault is
# in the rest of an answer, both may come of it, by what arrives together.
_NOTHING, _EITHER = frozenset({None}), frozenset({None, 200})
_HEARD = frozenset({200})
HOSTILE: Mapping[str, tuple[Behaviour, frozenset[int | None]]] = {
    "hangs after accept": (hang_at_once, _NOTHING),
    "answers before it was asked": (answer_at_once, _EITHER),
    "hangs in the status": (saying(b"HTTP/1.1 20"), _NOTHING),
    "hangs in the headers": (saying(b"HTTP/1.1 200 OK\r\nContent-Le"), _NOTHING),
    "hangs after the headers": (saying(_headers(b"Content-Length: 2")), _HEARD),
    "a byte at a time in the headers": (dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"), _NOTHING),
    "a byte at a time in the body": (dripping(_headers(b"Content-Length: 1000"), b"x"), _HEARD),
    "a chunk at a time": (dripping(_CHUNKED, b"1\r\nx\r\n"), _HEARD),
    "a 100 Continue at a time": (dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), _NOTHING),
    "10 GB of body": (flooding(_headers(b"Content-Length: 10737418240"), bytes(0x10000)), _HEARD),
    "a body until it closes, which it never does": (flooding(_headers(b"Connection: close"), bytes(0x10000)), _HEARD),
    "endless chunks": (flooding(_CHUNKED, _CHUNK), _EITHER),
    "a chunk of 2**64 bytes": (flooding(_CHUNKED + b"ffffffffffffffff\r\n", bytes(0x10000)), _EITHER),
    "an endless chunk extension": (flooding(_CHUNKED + b"1;", b"x" * 0x10000), _EITHER),
    "endless trailers": (flooding(_CHUNKED + b"0\r\n", b"X: y\r\n" * 1000), _EITHER),
    "a gzip bomb": (
        saying(_headers(b"Content-Encoding: gzip", b"Content-Length: %d" % len(_BOMB)) + _BOMB),
        _HEARD,
    ),
    "a gzip bomb in chunks": (
        saying(_CHUNKED[:-2] + b"Content-Encoding: gzip\r\n\r\n%x\r\n" % len(_BOMB) + _BOMB + b"\r\n0\r\n\r\n"),
        _HEARD,
    ),
    "what it calls gzip": (saying(_headers(b"Content-Encoding: gzip", b"Content-Length: 5") + b"plain"), _HEARD),
    "a header of 1 MB": (saying(_headers(b"X: " + b"x" * MEBIBYTE)), _NOTHING),
    "an endless header": (flooding(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 0x10000), _NOTHING),
    "an endless name of a header": (flooding(b"HTTP/1.1 200 OK\r\n", b"x" * 0x10000), _NOTHING),
    "an endless status": (flooding(b"HTTP/1.1 200 ", b"x" * 0x10000), _NOTHING),
    "10,000 headers": (saying(_headers(*(b"X-%d: y" % number for number in range(10_000)))), _NOTHING),
    "endless headers": (flooding(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000), _NOTHING),
    "endless 100 Continue": (flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), _NOTHING),
    "endless 103 Early Hints": (flooding(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000), _NOTHING),
    "101 Switching Protocols": (
        saying(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + bytes(MEBIBYTE)),
        frozenset({101}),
    ),
    "no length, no end": (saying(_headers()), _HEARD),
    "two lengths": (saying(_headers(b"Content-Length: 2", b"Content-Length: 3") + b"ok"), _NOTHING),
    "a negative length": (saying(_headers(b"Content-Length: -2") + b"ok"), _NOTHING),
    "a length that is no number": (saying(_headers(b"Content-Length: two") + b"ok"), _NOTHING),
    "a length of 400 digits": (saying(_headers(b"Content-Length: " + b"9" * 400) + b"ok"), _NOTHING),
    "a status of two digits": (saying(b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"), _NOTHING),
    "a status of 400 digits": (saying(b"HTTP/1.1 " + b"2" * 400 + b" OK\r\nContent-Length: 0\r\n\r\n"), _NOTHING),
    "HTTP/9.9": (saying(b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n"), _NOTHING),
    "HTTP/0.9": (hanging_up_after(b"<html>ok</html>"), _NOTHING),
    "HTTP/2 without having asked": (saying(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), _NOTHING),
    "another protocol": (saying(b"SSH-2.0-OpenSSH_9.9\r\n"), _NOTHING),
    "a zero byte in a header": (saying(_headers(b"X: \x00", b"Content-Length: 0")), _NOTHING),
    "nothing": (hanging_up_after(b""), _NOTHING),
    "only the end of headers": (hanging_up_after(b"\r\n\r\n\r\n\r\n"), _NOTHING),
    "half an answer": (hanging_up_after(b"HTTP/1.1 200 OK\r\nContent-"), _NOTHING),
    "less than it said": (hanging_up_after(_headers(b"Content-Length: 100") + b"ok"), _HEARD),
    "a reset on connect": (reset_at_once, _NOTHING),
    "a reset after the request": (resetting_after(b""), _NOTHING),
    "a reset in the headers": (resetting_after(b"HTTP/1.1 200 OK\r\nContent-"), _NOTHING),
    "a reset in the body": (resetting_after(_headers(b"Content-Length: 100") + b"ok"), _EITHER),
    **{f"garbage {seed}": (saying(_garbage(seed)), _NOTHING) for seed in range(8)},
}
