"""Access tokens: JWTs of one issuer, verified against its published keys (RFC 7519, RFC 8725, RFC 9068).

Only asymmetric algorithms exist here. A token can neither choose nor bring its key: `kid` picks one of the issuer's,
and each key is bound to one algorithm.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jwt
from jwt import PyJWK, PyJWKClient, PyJWKSet
from jwt.exceptions import PyJWKClientError, PyJWTError

from payorder.domain.errors import Unauthenticated
from payorder.ports.tokens import Caller

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt", "jwt"})
TOKEN_LENGTH_MAX = 8192
KEY_ID_LENGTH_MAX = 256
SUBJECT_LENGTH_MAX = 255
LEEWAY_SECONDS = 30

# How long after the last question the issuer is asked for its keys again: when it has never answered, when a token has
# a key that it did not have, and in any case.
_ASK_FIRST_SECONDS = 1.0
_ASK_UNKNOWN_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 300.0

# How many verified tokens are remembered.
_VERIFIED_MAX = 10_000


class KeySet(Protocol):
    """The issuer's keys."""

    async def find(self, key_id: str) -> PyJWK:
        """Raises KeyError."""
        ...


class NoKeySet(Exception):
    """What was read is no JWKS, or none with a key in it."""


class FileKeySet:
    """A JWKS file (RFC 7517), read again when it has changed. One that cannot be read leaves the keys as they were.

    Raises OSError or NoKeySet if it cannot be read at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at_ns = path.stat().st_mtime_ns
        self._keys = _keys_in(path)

    async def find(self, key_id: str) -> PyJWK:
        # Looked at for known keys too: a key that was taken out must be refused at once.
        with suppress(OSError, NoKeySet):
            self._read_if_changed()
        return self._keys[key_id]

    def _read_if_changed(self) -> None:
        changed_at_ns = self._path.stat().st_mtime_ns
        if changed_at_ns != self._read_at_ns:
            self._keys = _keys_in(self._path)
            self._read_at_ns = changed_at_ns


class UrlKeySet:
    """A JWKS at an URL, asked again every few minutes, and for an unknown key, but not more than once in a while.

    The keys stay as they were while the issuer does not answer.
    """

    def __init__(self, url: str) -> None:
        self._client = PyJWKClient(url, cache_jwk_set=False, timeout=3)
        self._keys: Mapping[str, PyJWK] = {}
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def find(self, key_id: str) -> PyJWK:
        is_known = key_id in self._keys
        if self._is_due(is_known=is_known) and not (is_known and self._asking.locked()):
            async with self._asking:
                if self._is_due(is_known=key_id in self._keys):
                    await self._ask()
        return self._keys[key_id]

    def _is_due(self, *, is_known: bool) -> bool:
        if not self._keys:
            return time.monotonic() - self._asked_at > _ASK_FIRST_SECONDS
        return time.monotonic() - self._asked_at > (_ASK_AGAIN_SECONDS if is_known else _ASK_UNKNOWN_SECONDS)

    async def _ask(self) -> None:
        try:
            self._keys = _keys_of(await asyncio.to_thread(self._client.fetch_data))
        except (PyJWKClientError, NoKeySet, OSError, ValueError):
            pass  # Who asks for a key that is not there is told so.
        finally:
            self._asked_at = time.monotonic()


def _keys_in(path: Path) -> Mapping[str, PyJWK]:
    try:
        return _keys_of(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise NoKeySet from error


def _keys_of(key_set: Any) -> Mapping[str, PyJWK]:
    try:
        keys = PyJWKSet.from_dict(key_set).keys
    except (PyJWTError, ValueError, TypeError, AttributeError) as error:
        raise NoKeySet from error
    return {key.key_id: key for key in keys if key.key_id}


@dataclass(frozen=True, slots=True)
class _Verified:
    """What a token stood for when it was verified, and with which key; `expires_at` in epoch seconds."""

    caller: Caller
    key: PyJWK
    key_id: str
    expires_at: float


class JwtVerifier:
    """Implements payorder.ports.tokens.TokenVerifier for one issuer and one audience."""

    def __init__(self, *, keys: KeySet, issuer: str, audience: str, lifetime_seconds_max: int) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._lifetime_seconds_max = lifetime_seconds_max
        # By the digest of a token, the oldest first: verifying costs an eighth of a call (docs/performance.md).
        self._verified: dict[bytes, _Verified] = {}

    async def verify(self, token: str) -> Caller:
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        known = self._verified.get(digest)
        if known is not None and await self._still_holds(known):
            return known.caller
        verified = await self._verify(token)
        if len(self._verified) >= _VERIFIED_MAX:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = verified
        return verified.caller

    async def _still_holds(self, known: "_Verified") -> bool:
        """Keys that were read again are other objects, so that every token is then verified again."""
        if time.time() >= known.expires_at + LEEWAY_SECONDS:
            return False
        try:
            return await self._keys.find(known.key_id) is known.key
        except KeyError:
            return False

    async def _verify(self, token: str) -> "_Verified":
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
        return _Verified(self._caller_of(claims), key, str(key.key_id), claims["exp"])

    async def _key_of(self, token: str) -> PyJWK:
        if len(token) > TOKEN_LENGTH_MAX:
            raise Unauthenticated("token too long")
        header = jwt.get_unverified_header(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise Unauthenticated("algorithm not accepted")
        if str(header.get("typ", "JWT")).lower() not in TOKEN_TYPES:
            raise Unauthenticated("type not accepted")
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
