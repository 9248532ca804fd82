"""The addresses of a name: asked for once, all of them vetted, and those are connected to."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Protocol

import aiodns
import pycares
from aiohttp.abc import AbstractResolver, ResolveResult

from payorder.adapters.receivers.addresses import Address, Network, is_acceptable


class Names(Protocol):
    async def addresses(self, name: str) -> Sequence[Address]:
        """All addresses of a name. Raises OSError."""
        ...

    async def close(self) -> None: ...


class NameRefused(OSError):
    """The name has no address, or one that is not acceptable. Which of them is nobody's business."""


class VettedNames(AbstractResolver):
    """What the connector asks, so that there is nothing between the question and the connection."""

    def __init__(self, names: Names, networks: tuple[Network, ...], *, timeout_seconds: float) -> None:
        self._names = names
        self._networks = networks
        self._timeout_seconds = timeout_seconds

    async def addresses(self, name: str) -> Sequence[Address]:
        """Raises NameRefused."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                addresses = await self._names.addresses(name)
        except (OSError, ValueError):  # TimeoutError is the first; a name that cannot be asked for is the second
            raise NameRefused from None
        if not addresses or not all(is_acceptable(address, self._networks) for address in addresses):
            raise NameRefused
        return addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=family,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self.addresses(host)
        ]

    async def close(self) -> None:
        await self._names.close()


class SystemNames:
    """Implements Names: the machine's name servers and file of hosts. No thread waits, so nobody is held up there."""

    # With a search list, as Kubernetes has one, a name would be tried inside first; HOSTALIASES could give another.
    _FLAGS = pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_NOALIASES | pycares.ARES_FLAG_EDNS

    def __init__(self, servers: Sequence[str] | None = None) -> None:
        """`servers`: others than the machine's, with `:port`."""
        self._resolver = aiodns.DNSResolver(servers, flags=self._FLAGS)

    async def addresses(self, name: str) -> Sequence[Address]:
        try:
            found = await self._resolver.getaddrinfo(name, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            raise OSError from error
        return [ip_address(node.addr[0].decode("ascii")) for node in found.nodes]

    async def close(self) -> None:
        await self._resolver.close()
