"""Issuers of the tests' own: keys of every algorithm, tokens signed with them, and discovery over HTTP."""

import base64
import json
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from payorder.adapters.tokens.verifier import JwtVerifier, TokenRules
from payorder.domain.errors import Unauthenticated

DISCOVERY, JWKS = "/.well-known/openid-configuration", "/jwks"

TO_JWK = {
    "RS256": jwt.algorithms.RSAAlgorithm.to_jwk,
    "ES256": jwt.algorithms.ECAlgorithm.to_jwk,
    "EdDSA": jwt.algorithms.OKPAlgorithm.to_jwk,
}
Key = Any

RULES = TokenRules(audience="payorder", types=frozenset({"at+jwt"}), lifetime_seconds_max=24 * 60 * 60)


def new_key(algorithm: str) -> Key:
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def new_keys() -> dict[str, Key]:
    return {algorithm: new_key(algorithm) for algorithm in TO_JWK}


def jwk(algorithm: str, key: Key, **changes: Any) -> dict[str, Any]:
    """The public half; `...` leaves a member out."""
    members = dict(TO_JWK[algorithm](key.public_key(), as_dict=True))
    members |= {"kid": f"key-{algorithm}", "use": "sig", "alg": algorithm} | changes
    return without(members)


def without(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not ...}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Signer:
    """An issuer's keys, one of each algorithm. `foreign_url` is where a forged token says that its key is."""

    def __init__(self, issuer: str, keys: Mapping[str, Key]) -> None:
        self.issuer = issuer
        self.keys = dict(keys)
        self.stranger = new_key("ES256")
        self.foreign_url = "http://169.254.169.254/jwks"

    @property
    def key_set(self) -> dict[str, Any]:
        return {"keys": [jwk(algorithm, key) for algorithm, key in self.keys.items()]}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What an access token says; `...` leaves a claim out."""
        body = {
            "iss": self.issuer,
            "aud": "payorder",
            "sub": "alice",
            "scope": "read:orders write:orders",
            "exp": int(time.time()) + 600,
        }
        return without(body | changes)

    def token(
        self, algorithm: str = "ES256", *, header: Mapping[str, Any] | None = None, by: Key = None, **changes: Any
    ) -> str:
        headers = without({"kid": f"key-{algorithm}", "typ": "at+jwt"} | dict(header or {}))
        # PyJWT would put `typ` back.
        headers.setdefault("typ", None)
        return jwt.encode(self.claims(**changes), by or self.keys[algorithm], algorithm, headers=headers)

    def raw(self, header: str, payload: str) -> str:
        """Signed with our own key, whatever the two texts are."""
        text = f"{encoded(header.encode())}.{encoded(payload.encode())}"
        algorithm = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256, ec.SECP256R1)
        return f"{text}.{encoded(algorithm.sign(text.encode(), self.keys['ES256']))}"

    def with_claim(self, name: str, text: str) -> str:
        """A claim in JSON that Python would not write."""
        payload = json.dumps(self.claims(**{name: "MARK"})).replace('"MARK"', text)
        return self.raw('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256"}', payload)

    def with_header(self, text: str) -> str:
        return self.raw(text, json.dumps(self.claims()))


class HttpIssuer(Signer):
    """An OIDC issuer over HTTP, and how often each path was asked for. `answer` replaces what is said at a path."""

    def __init__(self, issuer: str, keys: Mapping[str, Key]) -> None:
        super().__init__(issuer, keys)
        self.asked: Counter[str] = Counter()
        self.answers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self.discovery: dict[str, Any] = {"issuer": issuer, "jwks_uri": issuer + JWKS}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] += 1
        if request.path in self.answers:
            return await self.answers[request.path](request)
        documents = {DISCOVERY: self.discovery, JWKS: self.key_set}
        if request.path not in documents:
            return web.Response(status=404)
        return web.json_response(documents[request.path])

    @staticmethod
    def saying(*keys: Mapping[str, Any]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A key set of these alone, for `answers`."""

        async def say(_: web.Request) -> web.Response:
            return web.json_response({"keys": keys})

        return say


@asynccontextmanager
async def running_issuer(
    keys: Mapping[str, Key], *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HttpIssuer]:
    """On a port of this machine; 0: any."""
    listening = socket.create_server(("127.0.0.1", port))
    issuer = HttpIssuer(f"{'https' if tls else 'http'}://127.0.0.1:{listening.getsockname()[1]}", keys)
    application = web.Application()
    application.router.add_get("/{path:.*}", issuer.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listening, ssl_context=tls).start()
    try:
        yield issuer
    finally:
        await runner.cleanup()


async def cause_of(verifier: JwtVerifier, token: str, certificate: str | None = None) -> str | None:
    """Why it is refused; None if it is not. Any other exception is a fault."""
    try:
        await verifier.verify(token, certificate)
    except Unauthenticated as refusal:
        return refusal.cause
    return None
