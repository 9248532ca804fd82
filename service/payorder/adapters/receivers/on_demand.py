"""Receivers whose HTTP client is there once somebody needs it: it costs a quarter of a second to import."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from payorder.adapters.receivers.rules import LIMITS, Rules
from payorder.ports.receivers import Answer

if TYPE_CHECKING:
    from ssl import SSLContext

    from payorder.adapters.receivers.client import HttpReceivers


class ReceiversOnDemand:
    """Implements payorder.ports.receivers.Receivers.

    Each kind of URL has a client of its own: a connection is used again without asking where it leads, so one that was
    made to the inside must not be found by a URL that may not go there.
    """

    def __init__(self, rules: Rules, *, of_services: Rules) -> None:
        self._rules = {False: rules, True: of_services}
        self._clients: dict[bool, HttpReceivers] = {}
        self._opening = asyncio.Lock()

    async def vet(self, url: str, *, by_service: bool) -> None:
        await (await self._opened(by_service=by_service)).vet(url)

    async def send(self, url: str, headers: Mapping[str, str], body: bytes, *, by_service: bool) -> Answer:
        return await (await self._opened(by_service=by_service)).send(url, headers, body)

    async def close(self) -> None:
        async with self._opening:
            for client in self._clients.values():
                await client.close()

    async def _opened(self, *, by_service: bool) -> "HttpReceivers":
        if not self._clients:
            await self._open()
        return self._clients[by_service]

    async def _open(self) -> None:
        async with self._opening:
            if not self._clients:
                # Calls go on meanwhile.
                kind, tls = await asyncio.to_thread(_import)
                self._clients = {each: kind(rules, LIMITS, tls=tls) for each, rules in self._rules.items()}


def _import() -> "tuple[type[HttpReceivers], SSLContext]":
    from payorder.adapters.receivers import client  # noqa: PLC0415 - the import that waits

    return client.HttpReceivers, client.tls_context()
