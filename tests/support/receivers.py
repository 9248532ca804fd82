"""The adapter that sends to receivers, as tests want it."""

import ipaddress
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from payorder.adapters.receivers.addresses import Address, Network
from payorder.adapters.receivers.client import HttpReceivers
from payorder.adapters.receivers.names import Names
from payorder.adapters.receivers.rules import Limits, Rules

HEADERS = {"webhook-id": "01a2038d-0381-70ee-9230-907ce2a7f446"}
BODY = b'{"eventType":"payment.succeeded"}'

LOOPBACK = ("127.0.0.0/8",)
# Nothing in a test is so slow, whatever else the machine does.
PATIENT = Limits(connect_seconds=60.0, total_seconds=60.0, connection_seconds=600.0)
HASTY = Limits(connect_seconds=0.3, total_seconds=0.3, connection_seconds=600.0)


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


class KnownNames:
    """Implements Names: a table instead of a name server."""

    def __init__(self, addresses: Mapping[str, Sequence[str]] = {}) -> None:
        self._addresses = addresses

    async def addresses(self, name: str) -> Sequence[Address]:
        return [ipaddress.ip_address(text) for text in self._addresses.get(name, ())]

    async def close(self) -> None: ...


@asynccontextmanager
async def receivers(
    limits: Limits = PATIENT,
    *,
    opened: Sequence[str] = LOOPBACK,
    names: Names | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[HttpReceivers]:
    """As in development: http, and any port."""
    rules = Rules(allows_http=True, ports=None, networks=networks(*opened))
    tls = tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    adapter = HttpReceivers(rules, limits, tls=tls, names=names or KnownNames())
    try:
        yield adapter
    finally:
        await adapter.close()
