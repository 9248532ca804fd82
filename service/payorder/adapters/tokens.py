"""Access tokens: JWTs of one issuer, verified against its published keys (RFC 7519, RFC 8725, RFC 9068).

Only asymmetric algorithms exist here. A token can neither choose nor bring its key: `kid` picks one of the issuer's,
and each key is bound to one algorithm.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import jwt
from jwt import PyJWK, PyJWKClient, PyJWKSet
from jwt.exceptions import PyJWTError

from payorder.domain.errors import Unauthenticated
from payorder.ports.tokens import Caller

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt", "jwt"})
TOKEN_LENGTH_MAX = 8192
KEY_ID_LENGTH_MAX = 256
SUBJECT_LENGTH_MAX = 255
LEEWAY_SECONDS = 30
KEY_SET_FRESH_SECONDS = 300
KEY_SET_PAUSE_SECONDS = 60
KEY_SET_TIMEOUT_SECONDS = 3


class KeySet(Protocol):
    """The issuer's keys."""

    async def find(self, key_id: str) -> PyJWK:
        """Raises KeyError."""
        ...


class FileKeySet:
    """A JWKS file (RFC 7517), read again when it has changed. Raises OSError or ValueError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed_at_ns = path.stat().st_mtime_ns
        self._keys = _keys_of(path.read_bytes())

    async def find(self, key_id: str) -> PyJWK:
        # While a changed file cannot be read, halfway through being replaced, its last good keys stay.
        with suppress(OSError, ValueError, PyJWTError):
            self._read_if_changed()
        return self._keys[key_id]

    def _read_if_changed(self) -> None:
        changed_at_ns = self._path.stat().st_mtime_ns
        if changed_at_ns != self._changed_at_ns:
            self._keys = _keys_of(self._path.read_bytes())
            self._changed_at_ns = changed_at_ns


class UrlKeySet:
    """A JWKS at an URL, asked for again after a while and for an unknown key, but by one call at a time and not often.

    While the issuer does not answer, its last good keys stay.
    """

    def __init__(self, url: str) -> None:
        self._client = PyJWKClient(url, cache_jwk_set=False, timeout=KEY_SET_TIMEOUT_SECONDS)
        self._keys: Mapping[str, PyJWK] = {}
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def find(self, key_id: str) -> PyJWK:
        if key_id not in self._keys or self._age_seconds() > KEY_SET_FRESH_SECONDS:
            async with self._asking:
                await self._ask()
        return self._keys[key_id]

    async def _ask(self) -> None:
        pause_seconds = KEY_SET_PAUSE_SECONDS if self._keys else KEY_SET_TIMEOUT_SECONDS
        if self._age_seconds() < pause_seconds:
            return
        self._asked_at = time.monotonic()
        with suppress(PyJWTError, ValueError):
            key_set = await asyncio.to_thread(self._client.get_jwk_set, refresh=True)
            self._keys = _by_id(key_set)

    def _age_seconds(self) -> float:
        return time.monotonic() - self._asked_at


def _keys_of(text: bytes) -> Mapping[str, PyJWK]:
    return _by_id(PyJWKSet.from_dict(json.loads(text)))


def _by_id(key_set: PyJWKSet) -> Mapping[str, PyJWK]:
    return {key.key_id: key for key in key_set.keys if key.key_id}


class JwtVerifier:
    """Implements payorder.ports.tokens.TokenVerifier for one issuer and one audience."""

    def __init__(self, *, keys: KeySet, issuer: str, audience: str, lifetime_seconds_max: int) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._lifetime_seconds_max = lifetime_seconds_max

    async def verify(self, token: str) -> Caller:
        try:
            key = await self._key_of(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (PyJWTError, KeyError, ValueError, RecursionError) as error:
            raise Unauthenticated(type(error).__name__) from None
        return self._caller_of(claims)

    async def _key_of(self, token: str) -> PyJWK:
        if len(token) > TOKEN_LENGTH_MAX:
            raise Unauthenticated("token too long")
        header = jwt.get_unverified_header(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS or str(header.get("typ", "JWT")).lower() not in TOKEN_TYPES:
            raise Unauthenticated("algorithm or type not accepted")
        if not isinstance(key_id, str) or len(key_id) > KEY_ID_LENGTH_MAX:
            raise Unauthenticated("no key id")
        key = await self._keys.find(key_id)
        if key.algorithm_name != algorithm or key.public_key_use not in (None, "sig"):
            raise Unauthenticated("algorithm is not the key's")
        return key

    def _caller_of(self, claims: Mapping[str, Any]) -> Caller:
        # PyJWT takes numbers written as strings, and any expiry however far.
        expires_at = claims["exp"]
        if type(expires_at) not in (int, float) or expires_at > time.time() + self._lifetime_seconds_max:
            raise Unauthenticated("expiry not accepted")
        subject = claims["sub"]
        if not 1 <= len(subject) <= SUBJECT_LENGTH_MAX or not subject.isprintable():
            raise Unauthenticated("subject not accepted")
        return Caller(subject, _scopes_of(claims))


def _scopes_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """`scope` (RFC 9068) or `scp`: a string with spaces, or a list of strings."""
    granted = claims.get("scope", claims.get("scp", ""))
    names = granted.split(" ") if isinstance(granted, str) else granted
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Unauthenticated("scope is not text")
    return frozenset(names)
