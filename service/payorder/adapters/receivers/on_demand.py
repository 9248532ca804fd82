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
    """Implements payorder.ports.receivers.Receivers."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._client: HttpReceivers | None = None
        self._opening = asyncio.Lock()

    async def vet(self, url: str) -> None:
        await (await self._opened()).vet(url)

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return await (await self._opened()).send(url, headers, body)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _opened(self) -> "HttpReceivers":
        async with self._opening:
            if self._client is None:
                # Calls go on meanwhile.
                kind, tls = await asyncio.to_thread(_import)
                self._client = kind(self._rules, LIMITS, tls=tls)
            return self._client


def _import() -> "tuple[type[HttpReceivers], SSLContext]":
    from payorder.adapters.receivers import client  # noqa: PLC0415 - the import that waits

    return client.HttpReceivers, client.tls_context()
