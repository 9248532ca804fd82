"""One decision about every token, made once for each and remembered."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jwt
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from payorder.adapters.tokens.keys import ALGORITHMS
from payorder.domain.errors import Unauthenticated
from payorder.domain.origin import SERVICE
from payorder.ports.tokens import Caller

TOKEN_LENGTH_MAX = 8192
KEY_ID_LENGTH_MAX = 256
SUBJECT_LENGTH_MAX = 255
LEEWAY_SECONDS = 30

# Where a token could bring its key, or an address of it.
_KEY_HEADERS = ("jku", "jwk", "x5u", "x5c")
_TIMES = ("exp", "nbf", "iat")

# How many verified tokens are remembered.
_VERIFIED_MAX = 10_000


class KeySet(Protocol):
    """The keys of one issuer."""

    async def find(self, key_id: str, algorithm: str) -> PyJWK:
        """Raises KeyError."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must say. `types` are values of `typ` in lower case; with "jwt" among them it may be missing."""

    audience: str
    types: frozenset[str]
    lifetime_seconds_max: int


@dataclass(frozen=True, slots=True)
class _Verified:
    """What a token stood for when it was verified, and with which key.

    `certificate` is that of the only client that may use it; None: whoever has it may.
    """

    caller: Caller
    keys: KeySet
    key: PyJWK
    certificate: str | None


class JwtVerifier:
    """Implements payorder.ports.tokens.TokenVerifier.

    A subject is known by its issuer's word alone: those of the first issuer are called by their `sub`, those of any
    other "{issuer}#{sub}", so that none can pass for another's (OpenID Connect Core 1.0, section 5.7).
    """

    def __init__(self, issuers: Mapping[str, KeySet], rules: TokenRules) -> None:
        self._issuers = issuers
        self._rules = rules
        home, *others = issuers
        self._prefixes = {home: ""} | {issuer: f"{issuer}#" for issuer in others}
        # By the digest of a token, the oldest first: verifying costs an eighth of a call (docs/performance.md).
        self._verified: dict[bytes, _Verified] = {}

    async def verify(self, token: str, certificate: str | None) -> Caller:
        if len(token) > TOKEN_LENGTH_MAX:
            raise Unauthenticated("token too long")
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        verified = self._verified.get(digest)
        if verified is None or not await _still_holds(verified):
            verified = await self._verify(token)
            if len(self._verified) >= _VERIFIED_MAX:
                del self._verified[next(iter(self._verified))]
            self._verified[digest] = verified
        if verified.certificate not in (None, certificate):
            raise Unauthenticated("certificate is not the token's")
        return verified.caller

    async def close(self) -> None:
        for keys in self._issuers.values():
            await keys.close()

    async def _verify(self, token: str) -> _Verified:
        try:
            header, issuer = _read(token)
            keys = self._issuers[issuer]
            key = await self._key_of(header, keys)
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=issuer,
                audience=self._rules.audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (PyJWTError, KeyError, ValueError, RecursionError) as error:
            raise Unauthenticated(type(error).__name__) from None
        self._check_times(claims)
        caller = Caller(self._subject_of(claims, issuer), _scopes_of(claims), claims["exp"])
        return _Verified(caller, keys, key, _certificate_of(claims))

    async def _key_of(self, header: Mapping[str, Any], keys: KeySet) -> PyJWK:
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise Unauthenticated("algorithm not accepted")
        if str(header.get("typ", "JWT")).lower().removeprefix("application/") not in self._rules.types:
            raise Unauthenticated("type not accepted")
        if any(name in header for name in _KEY_HEADERS):
            raise Unauthenticated("token brings a key")
        if not isinstance(key_id, str) or len(key_id) > KEY_ID_LENGTH_MAX:
            raise Unauthenticated("no key id")
        try:
            return await keys.find(key_id, algorithm)
        except KeyError:
            raise Unauthenticated("issuer has no such key") from None

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        # PyJWT takes numbers written as strings, and any expiry however far.
        if any(type(claims.get(name, 0)) not in (int, float) for name in _TIMES):
            raise Unauthenticated("time is not a number")
        if claims["exp"] > time.time() + self._rules.lifetime_seconds_max:
            raise Unauthenticated("expiry not accepted")

    def _subject_of(self, claims: Mapping[str, Any], issuer: str) -> str:
        subject: str = self._prefixes[issuer] + claims["sub"]
        if not claims["sub"] or len(subject) > SUBJECT_LENGTH_MAX or not subject.isprintable():
            raise Unauthenticated("subject not accepted")
        if any(prefix and claims["sub"].startswith(prefix) for prefix in self._prefixes.values()):
            raise Unauthenticated("subject is another issuer's")
        if subject == SERVICE.actor:  # In the audit log nobody else may look like the service.
            raise Unauthenticated("subject is the service's own")
        return subject


async def _still_holds(known: _Verified) -> bool:
    """A key that has been replaced is another object, so that its tokens are verified again."""
    if time.time() >= known.caller.expires_at + LEEWAY_SECONDS:
        return False
    try:
        return await known.keys.find(str(known.key.key_id), known.key.algorithm_name) is known.key
    except KeyError:
        return False


def _read(token: str) -> tuple[Mapping[str, Any], str]:
    """The header, and the issuer that is claimed: good for nothing but to choose among the known ones."""
    # PyJWT takes padding, which RFC 7515 has none of: two texts would be one token.
    if "=" in token:
        raise Unauthenticated("token is padded")
    found = jwt.decode_complete(token, options={"verify_signature": False})
    issuer = found["payload"].get("iss")
    if not isinstance(issuer, str):
        raise Unauthenticated("no issuer")
    return found["header"], issuer


def _scopes_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """`scope` (RFC 9068) or `scp`: a string with spaces, or a list of strings."""
    granted = claims.get("scope", claims.get("scp", ""))
    names = granted.split(" ") if isinstance(granted, str) else granted
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Unauthenticated("scope is not text")
    return frozenset(names)


def _certificate_of(claims: Mapping[str, Any]) -> str | None:
    """What a token is bound to: a certificate as SHA-256 in base64url (RFC 8705, section 3.1), and nothing else."""
    if "cnf" not in claims:
        return None
    match claims["cnf"]:
        case {"x5t#S256": str(certificate), **others} if not others:
            return certificate
        case _:
            raise Unauthenticated("bond not accepted")
