"""Keys that an issuer publishes over HTTP: found by discovery (OpenID Connect Discovery 1.0) or at a given URL."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from jwt import PyJWK

from payorder.adapters.tokens.keys import Keys, NoKeySet, keys_of

# Reads a key set. Raises NoKeySet.
Read = Callable[[], Awaitable[object]]

# For both documents of an issuer: whoever waits for its keys still has a call to make.
ASK_TIMEOUT_SECONDS = 3.0
DOCUMENT_BYTES_MAX = 256 * 1024

# How long after the last question the issuer is asked for its keys again: when it has never answered, when a token has
# a key that it did not have, and in any case.
_ASK_FIRST_SECONDS = 1.0
_ASK_UNKNOWN_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 300.0
# Older keys are used only once the issuer was asked whether they are still its own, unless it does not answer.
_KEPT_SECONDS = 2 * _ASK_AGAIN_SECONDS


class RemoteKeySet:
    """Keys that are read again every few minutes, and for an unknown key, but not more than once in a while.

    They stay as they were while they cannot be read; `on_failure` is told why.
    """

    def __init__(self, read: Read, *, on_failure: Callable[[str], None]) -> None:
        self._read = read
        self._on_failure = on_failure
        self._document: object = None
        self._keys: Keys = {}
        self._asked_at = self._read_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def find(self, key_id: str, algorithm: str) -> PyJWK:
        key = self._keys.get((key_id, algorithm))
        if self._is_due(is_known=key is not None):
            # Nobody's call: one that is cut off must not take the answer away from all others.
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._ask())
        if key is not None and time.monotonic() - self._read_at < _KEPT_SECONDS:
            return key
        if self._asking is not None:
            await asyncio.shield(self._asking)
        return self._keys[key_id, algorithm]

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _is_due(self, *, is_known: bool) -> bool:
        if self._asking is not None and not self._asking.done():
            return False
        again = _ASK_AGAIN_SECONDS if is_known else _ASK_UNKNOWN_SECONDS
        return time.monotonic() - self._asked_at > (again if self._keys else _ASK_FIRST_SECONDS)

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
                document = await self._read()
            # The same keys stay the same objects, or else every token would have to be verified again.
            if document != self._document:
                self._keys, self._document = keys_of(document), document
            self._read_at = time.monotonic()
        except NoKeySet as failure:
            self._on_failure(str(failure))
        except TimeoutError:
            self._on_failure("no answer in time")


def key_set_at(url: str) -> Read:
    return lambda: _fetch(url)


def key_set_of(issuer: str, *, allows_http: bool) -> Read:
    """The key set that the issuer's discovery document names; the document is read anew each time."""

    async def read() -> object:
        document = await _fetch(discovery_url(issuer))
        if not isinstance(document, dict) or document.get("issuer") != issuer:
            raise NoKeySet("the discovery document is not this issuer's")
        return await _fetch(_key_set_url(document, allows_http=allows_http))

    return read


def discovery_url(issuer: str) -> str:
    """OpenID Connect Discovery 1.0, section 4.1."""
    return issuer.removesuffix("/") + "/.well-known/openid-configuration"


def _key_set_url(document: Mapping[str, Any], *, allows_http: bool) -> str:
    url = document.get("jwks_uri")
    schemes = ("https", "http") if allows_http else ("https",)
    try:
        if isinstance(url, str) and urlsplit(url).scheme in schemes:
            return url
    except ValueError:
        pass
    raise NoKeySet("the discovery document names no acceptable jwks_uri")


async def _fetch(url: str) -> object:
    """One JSON document. Nothing in the environment and no redirect leads elsewhere. Raises NoKeySet."""
    try:
        # What is compressed could grow beyond the bound, so nothing is.
        async with (
            aiohttp.ClientSession(trust_env=False, auto_decompress=False) as session,
            session.get(url, allow_redirects=False, headers={"accept-encoding": "identity"}) as answer,
        ):
            return json.loads(await _body_of(answer))
    except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
        raise NoKeySet(type(error).__name__) from None


async def _body_of(answer: aiohttp.ClientResponse) -> bytes:
    if answer.status != 200:  # noqa: PLR2004 - OK
        raise NoKeySet(f"status {answer.status}")
    try:
        await answer.content.readexactly(DOCUMENT_BYTES_MAX + 1)
    except asyncio.IncompleteReadError as end:
        return end.partial
    raise NoKeySet("too long")
