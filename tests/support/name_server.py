"""A name server of the tests' own, over UDP (RFC 1035), whose every answer is forgotten at once."""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

_IPV4, _IPV6 = 1, 28
_HEADER_LENGTH = 12

# The addresses of a name, by the how manieth question; the last goes on. No turn at all: never an answer.
Turns = Sequence[Sequence[str]]


class NameServer(asyncio.DatagramProtocol):
    """`asked` counts the questions for IPv4 addresses."""

    def __init__(self, zone: Mapping[str, Turns]) -> None:
        self._zone = zone
        self.asked: Counter[str] = Counter()
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        name, end = _name_in(data)
        kind = int.from_bytes(data[end : end + 2], "big")
        self.asked[name] += kind == _IPV4
        turns = self._zone.get(name, ((),))
        if turns:
            addresses = turns[min(max(self.asked[name], 1), len(turns)) - 1]
            records = [_record(text, kind) for text in addresses if _kind_of(text) == kind]
            counts = b"\x00\x01" + len(records).to_bytes(2, "big") + bytes(4)
            answer = data[:2] + b"\x85\x80" + counts + data[_HEADER_LENGTH : end + 4] + b"".join(records)
            self._transport.sendto(answer, address)


def _name_in(data: bytes) -> tuple[str, int]:
    """The name that is asked for, and where it ends."""
    labels, at = [], _HEADER_LENGTH
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(labels).lower(), at + 1


def _kind_of(text: str) -> int:
    return _IPV6 if ":" in text else _IPV4


def _record(text: str, kind: int) -> bytes:
    """With the name of the question, in the class of the internet, to be forgotten after 0 s."""
    address = ipaddress.ip_address(text).packed
    return b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\x00\x01" + bytes(4) + len(address).to_bytes(2, "big") + address


@asynccontextmanager
async def name_server(zone: Mapping[str, Turns]) -> AsyncIterator[NameServer]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: NameServer(zone), local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
