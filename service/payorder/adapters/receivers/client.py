"""One POST to somebody who is not to be trusted: limited in time, in bytes and in where it may go."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from payorder.adapters.receivers.names import NameRefused, Names, SystemNames, VettedNames
from payorder.adapters.receivers.rules import Limits, Rules
from payorder.adapters.receivers.urls import Target, target_of
from payorder.ports.receivers import Answer, UrlRefused

# What is heard of a body, and of an answer as a whole. Who has more to say loses the connection.
_BODY_BYTES_MAX = 1024
_ANSWER_BYTES_MAX = 32 * 1024
# Common servers end an idle connection after 5 s, and what is sent at that moment is lost.
_IDLE_SECONDS_MAX = 4.0
_TARGETS_KEPT = 4096
# Nothing is compressed, so that nothing can grow; what is compressed all the same stays so.
_HEADERS = {
    "content-type": "application/json",
    "user-agent": "payorder",
    "accept": "*/*",
    "accept-encoding": "identity",
}


def tls_context() -> ssl.SSLContext:
    """Receivers show a certificate for their name, of an authority that this machine trusts. It takes time to read."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class HttpReceivers:
    """What payorder.ports.receivers.Receivers says, by one set of rules. It is made in the loop that it is used in."""

    def __init__(self, rules: Rules, limits: Limits, *, tls: ssl.SSLContext, names: Names | None = None) -> None:
        """`names` are those of the machine, unless they are given."""
        self._names = VettedNames(names or SystemNames(), rules.networks, timeout_seconds=limits.connect_seconds)
        self._total_seconds = limits.total_seconds
        self._session = _session(self._names, limits, tls)

        @lru_cache(_TARGETS_KEPT)
        def target(url: str) -> Target:
            return target_of(url, rules)

        self._target = target

    async def vet(self, url: str) -> None:
        name = self._target(url).name
        if name is None:
            return
        try:
            await self._names.addresses(name)
        except NameRefused as error:
            raise UrlRefused("not a public name") from error

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        answer = Answer(None)
        try:
            target = self._target(url)
            async with (
                asyncio.timeout(self._total_seconds),
                self._session.post(target.url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                # From here on the receiver has answered, whatever becomes of the rest.
                answer = Answer(response.status, _retry_after_seconds(response.headers.get("retry-after")))
                await _hear_out(response)
        except (UrlRefused, aiohttp.ClientError, OSError, ValueError):
            pass
        return answer

    async def close(self) -> None:
        await self._session.close()
        await self._names.close()


def _session(names: VettedNames, limits: Limits, tls: ssl.SSLContext) -> aiohttp.ClientSession:
    """No proxy, no password file, no cookie, no name asked for twice."""
    connector = _Connector(
        limits.connection_seconds,
        resolver=names,
        use_dns_cache=False,
        ssl=tls,
        # Whoever sends has a bound, for each endpoint; several may be at one host, and do not wait for each other.
        limit=0,
        limit_per_host=0,
        keepalive_timeout=_IDLE_SECONDS_MAX,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        trust_env=False,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect_seconds),
    )


class _Connector(aiohttp.TCPConnector):
    """Its connections do not become older than `connection_seconds`, however busy they are."""

    def __init__(self, connection_seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._connection_seconds = connection_seconds
        # aiohttp bounds a header, but neither the number of 1xx answers nor the extension of a chunk, and there is no
        # other way in.
        kind: type[ResponseHandler] = _Hearing
        self._factory = partial(kind, self._loop)

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
    ) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            assert isinstance(connection.protocol, _Hearing)
            if time.monotonic() - connection.protocol.began_at < self._connection_seconds:
                return connection
            connection.close()


class _Hearing(ResponseHandler):
    """A connection that ends when an answer has more bytes than anybody needs to say."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.began_at = time.monotonic()
        self._bytes_left = 0

    def set_response_params(self, **params: Any) -> None:
        self._bytes_left = _ANSWER_BYTES_MAX
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        heard = data[: self._bytes_left]
        self._bytes_left -= len(heard)
        super().data_received(heard)
        if len(heard) < len(data) and self.transport is not None:
            self.transport.abort()


async def _hear_out(response: aiohttp.ClientResponse) -> None:
    """Its connection is used again if there is little more to hear, and ends with it otherwise."""
    if not response.content.is_eof():
        with suppress(asyncio.IncompleteReadError):
            await response.content.readexactly(_BODY_BYTES_MAX + 1)


def _retry_after_seconds(text: str | None) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date. None for anything else."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
