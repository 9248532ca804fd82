"""Which tokens are accepted, and that no other is: adapters/tokens.py on keys in a file and at an URL."""

import asyncio
import base64
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from payorder.adapters.tokens import verifier as verifier_module
from payorder.adapters.tokens.files import FileKeySet
from payorder.adapters.tokens.remote import RemoteKeySet, key_set_at
from payorder.adapters.tokens.verifier import JwtVerifier, TokenRules
from payorder.domain.errors import Unauthenticated
from payorder.local.issuer import Issuer
from payorder.ports.tokens import Caller
from support.forged_tokens import forged_tokens
from support.service import Service, until

ISSUER = "https://issuer.example"
DAY = 24 * 60 * 60
RULES = TokenRules(audience="payorder", types=frozenset({"at+jwt"}), lifetime_seconds_max=DAY)

KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "another": ec.generate_private_key(ec.SECP256R1()),
}
TO_JWK = {
    "RS256": jwt.algorithms.RSAAlgorithm.to_jwk,
    "ES256": jwt.algorithms.ECAlgorithm.to_jwk,
    "EdDSA": jwt.algorithms.OKPAlgorithm.to_jwk,
}


def jwk_of(algorithm: str, **changes: Any) -> dict[str, Any]:
    members = dict(TO_JWK[algorithm](KEYS[algorithm].public_key(), as_dict=True))
    members |= {"kid": f"key-{algorithm}", "use": "sig", "alg": algorithm} | changes
    return {name: value for name, value in members.items() if value is not ...}


ALL_KEYS = {"keys": [jwk_of(algorithm) for algorithm in TO_JWK]}


def claims(**changes: Any) -> dict[str, Any]:
    """What an access token says; `...` leaves a claim out."""
    now = int(time.time())
    body = {"iss": ISSUER, "aud": "payorder", "sub": "alice", "scope": "read:orders write:orders", "exp": now + 600}
    return {name: value for name, value in (body | changes).items() if value is not ...}


def token(algorithm: str = "ES256", *, header: Mapping[str, Any] | None = None, by: Any = None, **changes: Any) -> str:
    headers = {"kid": f"key-{algorithm}", "typ": "at+jwt"} | dict(header or {})
    headers = {name: value for name, value in headers.items() if value is not ...}
    return jwt.encode(claims(**changes), by or KEYS[algorithm], algorithm, headers=headers)


def raw_token(header: str, payload: str) -> str:
    """Signed with the issuer's own key, whatever the two texts are."""
    text = f"{part(header)}.{part(payload)}"
    algorithm = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256, ec.SECP256R1)
    return f"{text}.{encoded(algorithm.sign(text.encode(), KEYS['ES256']))}"


def part(text: str) -> str:
    return encoded(text.encode())


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def with_claim_text(name: str, text: str) -> str:
    """A claim in JSON that Python would not write."""
    payload = json.dumps(claims(**{name: "MARK"})).replace('"MARK"', text)
    return raw_token(json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": "key-ES256"}), payload)


def with_header_text(text: str) -> str:
    return raw_token(text, json.dumps(claims()))


def verifier_of(path: Path) -> JwtVerifier:
    return JwtVerifier({ISSUER: FileKeySet(path)}, RULES)


def write_keys(path: Path, keys: Mapping[str, Any], *, at_seconds: int) -> None:
    path.write_text(json.dumps(keys))
    os.utime(path, (at_seconds, at_seconds))


@pytest.fixture
def verifier(tmp_path: Path) -> JwtVerifier:
    write_keys(tmp_path / "jwks.json", ALL_KEYS, at_seconds=1)
    return verifier_of(tmp_path / "jwks.json")


async def cause_of(verifier: JwtVerifier, text: str) -> str | None:
    """Why it is refused; None if it is not. Any other exception is a fault."""
    try:
        await verifier.verify(text, None)
    except Unauthenticated as refusal:
        return refusal.cause
    return None


# Made when they are asked for, because their times are near.
ACCEPTED: dict[str, Callable[[], str]] = {
    "RS256": lambda: token("RS256"),
    "ES256": lambda: token("ES256"),
    "EdDSA": lambda: token("EdDSA"),
    "typ in another case": lambda: token(header={"typ": "AT+JWT"}),
    "typ with its prefix": lambda: token(header={"typ": "application/at+jwt"}),
    "our audience among others": lambda: token(aud=["another", "payorder"]),
    "expired within the leeway": lambda: token(exp=int(time.time()) - 5),
    "valid for almost a day": lambda: token(exp=int(time.time()) + DAY - 60),
    "expiry with a fraction": lambda: token(exp=time.time() + 600.5),
    "further claims": lambda: token(act={"sub": "x"}, email="a@example.com", admin=True),
    "scopes in a list": lambda: token(scope=["read:orders", "write:orders"]),
    "scp": lambda: token(scope=..., scp="read:orders write:orders"),
    "scp in a list": lambda: token(scope=..., scp=["read:orders", "write:orders"]),
}


@pytest.mark.parametrize("good", ACCEPTED.values(), ids=ACCEPTED)
async def test_a_good_token_is_its_callers(verifier: JwtVerifier, good: Callable[[], str]) -> None:
    assert Caller("alice", frozenset({"read:orders", "write:orders"})) == await verifier.verify(good(), None)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("", {""}), (..., {""}), ("write:orders", {"write:orders"}), ([], set()), ("WRITE:ORDERS", {"WRITE:ORDERS"})],
)
async def test_a_caller_has_the_scopes_of_the_token_and_no_others(
    verifier: JwtVerifier, scope: Any, expected: set[str]
) -> None:
    assert expected == set((await verifier.verify(token(scope=scope), None)).scopes)


def now() -> int:
    return int(time.time())


REFUSED: dict[str, Callable[[], str]] = {
    # Times
    "expired": lambda: token(exp=now() - 60),
    "exp 0": lambda: token(exp=0),
    "exp negative": lambda: token(exp=-1),
    "exp beyond the longest lifetime": lambda: token(exp=now() + DAY + 600),
    "exp as true": lambda: with_claim_text("exp", "true"),
    "exp null": lambda: with_claim_text("exp", "null"),
    "exp a list": lambda: with_claim_text("exp", f"[{now() + 600}]"),
    "exp an object": lambda: with_claim_text("exp", "{}"),
    "exp NaN": lambda: with_claim_text("exp", "NaN"),
    "exp Infinity": lambda: with_claim_text("exp", "Infinity"),
    "exp 1e400": lambda: with_claim_text("exp", "1e400"),
    "exp of 400 digits": lambda: with_claim_text("exp", "9" * 400),
    "exp of 5000 digits": lambda: with_claim_text("exp", "9" * 5000),
    "exp as text": lambda: token(exp=str(now() + 600)),
    "nbf in the future": lambda: token(nbf=now() + 600),
    "nbf as text": lambda: token(nbf="soon"),
    "nbf Infinity": lambda: with_claim_text("nbf", "Infinity"),
    "iat in the future": lambda: token(iat=now() + 600),
    "iat Infinity": lambda: with_claim_text("iat", "Infinity"),
    # Who and for whom
    "sub a number": lambda: with_claim_text("sub", "1"),
    "sub null": lambda: with_claim_text("sub", "null"),
    "sub a list": lambda: with_claim_text("sub", '["alice"]'),
    "sub of 256 characters": lambda: token(sub="a" * 256),
    "sub of spaces that break a line": lambda: token(sub="alice\u2028"),
    "sub of half a character": lambda: with_claim_text("sub", '"\\ud800"'),
    "iss a list": lambda: with_claim_text("iss", f'["{ISSUER}"]'),
    "iss a look-alike": lambda: token(iss="https://issuer.examp\u0142e"),
    "iss in another case": lambda: token(iss=ISSUER.upper()),
    "iss with a space": lambda: token(iss=f"{ISSUER} "),
    "aud a number": lambda: with_claim_text("aud", "1"),
    "aud a list in a list": lambda: with_claim_text("aud", '[["payorder"]]'),
    "aud empty": lambda: token(aud=[]),
    "aud in another case": lambda: token(aud="PayOrder"),
    "jti a number": lambda: with_claim_text("jti", "1"),
    "scope a number": lambda: with_claim_text("scope", "1"),
    "scope an object": lambda: with_claim_text("scope", '{"write:orders": true}'),
    "scope a list of numbers": lambda: with_claim_text("scope", "[1]"),
    "scope null": lambda: with_claim_text("scope", "null"),
    # Keys
    "kid of an algorithm that is not its": lambda: token("RS256", header={"kid": "key-ES256"}),
    "ES256 for the RSA key": lambda: token("ES256", header={"kid": "key-RS256"}),
    "PS256 for the RS256 key": lambda: jwt.encode(claims(), KEYS["RS256"], "PS256", headers={"kid": "key-RS256"}),
    "RS512 for the RS256 key": lambda: jwt.encode(claims(), KEYS["RS256"], "RS512", headers={"kid": "key-RS256"}),
    "another key": lambda: token(by=KEYS["another"]),
    "no kid": lambda: token(header={"kid": ...}),
    "kid null": lambda: with_header_text('{"alg":"ES256","typ":"at+jwt","kid":null}'),
    "kid a number": lambda: with_header_text('{"alg":"ES256","typ":"at+jwt","kid":1}'),
    "kid a list": lambda: with_header_text('{"alg":"ES256","typ":"at+jwt","kid":["key-ES256"]}'),
    "kid a path": lambda: token(header={"kid": "../../../../dev/null"}),
    "kid with a null byte": lambda: token(header={"kid": "key-ES256\0"}),
    "kid with a space": lambda: token(header={"kid": "key-ES256 "}),
    "kid SQL": lambda: token(header={"kid": "' UNION SELECT 'x"}),
    "kid of 257 characters": lambda: token(header={"kid": "k" * 257}),
    "kid of 64 KB": lambda: token(header={"kid": "k" * 65536}),
    "x5u": lambda: token(by=KEYS["another"], header={"x5u": "http://169.254.169.254/chain.pem"}),
    "x5c": lambda: token(by=KEYS["another"], header={"x5c": ["MII"]}),
    # Headers
    "alg a list": lambda: with_header_text('{"alg":["ES256"],"typ":"at+jwt","kid":"key-ES256"}'),
    "alg an object": lambda: with_header_text('{"alg":{},"typ":"at+jwt","kid":"key-ES256"}'),
    "alg null": lambda: with_header_text('{"alg":null,"typ":"at+jwt","kid":"key-ES256"}'),
    "alg in another case": lambda: with_header_text('{"alg":"es256","typ":"at+jwt","kid":"key-ES256"}'),
    "typ a list": lambda: with_header_text('{"alg":"ES256","typ":["at+jwt"],"kid":"key-ES256"}'),
    "typ refresh+jwt": lambda: token(header={"typ": "refresh+jwt"}),
    "typ id_token": lambda: token(header={"typ": "id_token"}),
    "crit a string": lambda: with_header_text('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256","crit":"exp"}'),
    "crit empty": lambda: with_header_text('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256","crit":[]}'),
    "crit unknown": lambda: with_header_text('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256","crit":["x"],"x":1}'),
    "b64 false": lambda: with_header_text(
        '{"alg":"ES256","typ":"at+jwt","kid":"key-ES256","crit":["b64"],"b64":false}'
    ),
    "header a list": lambda: with_header_text("[]"),
    "header a text": lambda: with_header_text('"ES256"'),
    "header null": lambda: with_header_text("null"),
    "header no JSON": lambda: with_header_text("{"),
    "header empty": lambda: with_header_text(""),
    "header nested deeply": lambda: with_header_text("[" * 4000),
    # Bodies
    "body a list": lambda: raw_token('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256"}', "[]"),
    "body null": lambda: raw_token('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256"}', "null"),
    "body no JSON": lambda: raw_token('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256"}', "{"),
    "body nested deeply": lambda: with_claim_text("x", "[" * 2000 + "]" * 2000),
    "body nested too deeply for its length": lambda: with_claim_text("x", "[" * 10000 + "]" * 10000),
    # Forms
    "1 MB": lambda: "a" * 1_000_000,
    "just too long": lambda: token(x="x" * 8192),
    "dots": lambda: "." * 8000,
    "one part": lambda: "abc",
    "four parts": lambda: token() + ".abc",
    "five parts, as if encrypted": lambda: "a.b.c.d.e",
    "padding": lambda: token() + "=",
    "a line break": lambda: token() + "\n",
    "a space within": lambda: token().replace(".", ". "),
    "no base64": lambda: "!!.!!.!!",
    "not ASCII": lambda: "\u00e9.\u00e9.\u00e9",
    "full-width": lambda: "\uff41.\uff42.\uff43",
    "half a character": lambda: "\ud800.\ud800.\ud800",
}


@pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED)
async def test_any_other_token_is_refused_and_no_fault(verifier: JwtVerifier, bad: Callable[[], str]) -> None:
    assert await cause_of(verifier, bad()) is not None


async def test_every_forged_token_is_refused_alike(service: Service) -> None:
    made = {name: bad() for name, bad in REFUSED.items()}
    tokens = forged_tokens(service.issuer) | {name: text for name, text in made.items() if is_sendable(text)}
    answers = {}
    for name, text in tokens.items():
        answer = await service.grpc.call("ListOrders", {}, token=text)
        answers[name] = answer.code, json.dumps(answer.body, sort_keys=True)
    assert {"UNAUTHENTICATED"} == {code for code, _ in answers.values()}
    assert 1 == len({body for _, body in answers.values()})


def is_sendable(text: str) -> bool:
    return len(text) < 8000 and text.isascii() and text.isprintable()


AUTHORIZATIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "empty": ("",),
    "Bearer alone": ("Bearer",),
    "Bearer and a space": ("Bearer ",),
    "Bearer twice": ("Bearer Bearer {token}",),
    "Basic": ("Basic {token}",),
    "no scheme": ("{token}",),
    "another scheme": ("Token {token}",),
    "Bearer with a colon": ("Bearer: {token}",),
    "two tokens": ("Bearer {token} {token}",),
    "two, the same": ("Bearer {token}", "Bearer {token}"),
    "two, one empty": ("", "Bearer {token}"),
    "in a list": ("Bearer {token}, Bearer {token}",),
    "quoted": ('Bearer "{token}"',),
}


@pytest.mark.parametrize("values", AUTHORIZATIONS.values(), ids=AUTHORIZATIONS)
async def test_one_bearer_token_is_wanted_and_nothing_else(service: Service, values: tuple[str, ...]) -> None:
    metadata = tuple(("authorization", value.format(token=service.token())) for value in values)
    assert "UNAUTHENTICATED" == await service.code_of("/payments.v1.OrderService/ListOrders", metadata=metadata)


async def test_the_scheme_is_read_in_any_case(service: Service) -> None:
    for scheme in ("Bearer", "bearer", "BEARER", "bEaReR"):
        metadata = (("authorization", f"{scheme} {service.token()}"),)
        assert "OK" == await service.code_of("/payments.v1.OrderService/ListOrders", metadata=metadata)


# Tokens seen before


async def test_a_token_is_verified_once(verifier: JwtVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    verified, decode = [], jwt.decode
    monkeypatch.setattr(
        jwt, "decode", lambda given, *rest, **options: verified.append(given) or decode(given, *rest, **options)
    )
    given = [token(sub="alice"), token(sub="bob")]
    callers = [(await verifier.verify(each, None)).subject for each in given * 3]
    assert (["alice", "bob"] * 3, given) == (callers, verified)


async def test_a_token_that_was_accepted_is_refused_once_it_has_expired(verifier: JwtVerifier) -> None:
    soon = token(exp=int(time.time()) - 28)
    assert "alice" == (await verifier.verify(soon, None)).subject
    await asyncio.sleep(2.1)
    with pytest.raises(Unauthenticated):
        await verifier.verify(soon, None)


async def test_a_token_that_was_refused_is_refused_again(verifier: JwtVerifier) -> None:
    good = token()
    await verifier.verify(good, None)
    for bad in (good[:-4] + "AAAA", good + "=", " " + good, good.upper()) * 2:
        with pytest.raises(Unauthenticated):
            await verifier.verify(bad, None)


async def test_no_more_tokens_are_remembered_than_there_is_room_for(
    verifier: JwtVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier_module, "_VERIFIED_MAX", 3)
    for number in range(5):
        assert f"user {number}" == (await verifier.verify(token(sub=f"user {number}"), None)).subject
    assert 3 == len(verifier._verified)


# Keys that change


async def test_a_new_key_in_the_file_is_accepted_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    write_keys(path, {"keys": [jwk_of("RS256")]}, at_seconds=1)
    verifier = verifier_of(path)
    assert [None, "issuer has no such key"] == [await cause_of(verifier, token(each)) for each in ("RS256", "ES256")]
    write_keys(path, {"keys": [jwk_of("RS256"), jwk_of("ES256")]}, at_seconds=2)
    assert [None, None] == [await cause_of(verifier, token(each)) for each in ("RS256", "ES256")]


async def test_a_key_that_was_taken_out_of_the_file_is_no_longer_accepted(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    write_keys(path, ALL_KEYS, at_seconds=1)
    verifier = verifier_of(path)
    held = token("ES256")
    assert await cause_of(verifier, held) is None
    write_keys(path, {"keys": [jwk_of("RS256")]}, at_seconds=2)
    assert await cause_of(verifier, held) is not None


async def test_a_key_that_was_replaced_under_its_name_is_no_longer_accepted(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    write_keys(path, ALL_KEYS, at_seconds=1)
    verifier = verifier_of(path)
    held = token("ES256")
    assert await cause_of(verifier, held) is None
    another = jwt.algorithms.ECAlgorithm.to_jwk(KEYS["another"].public_key(), as_dict=True)
    write_keys(path, {"keys": [another | {"kid": "key-ES256", "use": "sig", "alg": "ES256"}]}, at_seconds=2)
    assert await cause_of(verifier, held) is not None
    assert await cause_of(verifier, token("ES256", by=KEYS["another"])) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": []}', '{"keys": 1}', "\xff"])
async def test_a_file_that_is_written_badly_leaves_the_old_keys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "jwks.json"
    write_keys(path, ALL_KEYS, at_seconds=1)
    verifier = verifier_of(path)
    assert await cause_of(verifier, token()) is None
    path.write_bytes(text.encode("latin-1"))
    assert [None, True] == [
        await cause_of(verifier, token()),
        await cause_of(verifier, token(header={"kid": "new"})) is not None,
    ]
    path.unlink()
    assert [None, True] == [
        await cause_of(verifier, token()),
        await cause_of(verifier, token(header={"kid": "new"})) is not None,
    ]


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "kid": "key-ES256", "k": encoded(b"k" * 32), "alg": "HS256"},
        jwk_of("ES256", use="enc"),
        jwk_of("ES256", alg="ES384"),
        jwk_of("RS256", kid="key-ES256"),
    ],
)
async def test_a_key_that_is_not_for_this_is_not_used(tmp_path: Path, key: dict[str, Any]) -> None:
    write_keys(tmp_path / "jwks.json", {"keys": [key, jwk_of("RS256")]}, at_seconds=1)
    verifier = verifier_of(tmp_path / "jwks.json")
    symmetric = jwt.encode(claims(), b"k" * 32, "HS256", headers={"kid": "key-ES256"})
    assert [True, True] == [await cause_of(verifier, text) is not None for text in (token("ES256"), symmetric)]
    assert await cause_of(verifier, token("RS256")) is None


# Keys at an URL


class KeyServer:
    """The issuer's key set over HTTP, and what was asked of it."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = ALL_KEYS
        self.status = 200
        self.asked: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked[request.path] += 1
        return web.json_response(self.keys, status=self.status)


@pytest.fixture
async def key_server() -> AsyncIterator[tuple[KeyServer, str]]:
    keys = KeyServer()
    application = web.Application()
    application.router.add_get("/{path:.*}", keys.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield keys, f"http://{host}:{port}/jwks"
    await runner.cleanup()


def verifier_at(url: str) -> JwtVerifier:
    return JwtVerifier({ISSUER: RemoteKeySet(key_set_at(url), on_failure=lambda _: None)}, RULES)


async def test_keys_at_an_url_are_fetched_once(key_server: tuple[KeyServer, str]) -> None:
    keys, url = key_server
    verifier = verifier_at(url)
    for text in (token("RS256"), token("ES256"), token("EdDSA")) * 10:
        assert await cause_of(verifier, text) is None
    assert Counter({"/jwks": 1}) == keys.asked


async def test_many_callers_at_the_start_fetch_the_keys_once(key_server: tuple[KeyServer, str]) -> None:
    keys, url = key_server
    verifier = verifier_at(url)
    assert [None] * 50 == await asyncio.gather(*(cause_of(verifier, token()) for _ in range(50)))
    assert Counter({"/jwks": 1}) == keys.asked


async def test_unknown_keys_are_no_storm_on_the_issuer(key_server: tuple[KeyServer, str]) -> None:
    keys, url = key_server
    verifier = verifier_at(url)
    texts = [token(header={"kid": f"unknown {number}"}) for number in range(300)]
    causes = await asyncio.gather(*(cause_of(verifier, text) for text in texts))
    assert {"issuer has no such key"} == set(causes)
    assert Counter({"/jwks": 1}) == keys.asked


async def test_no_address_in_a_token_is_asked(key_server: tuple[KeyServer, str]) -> None:
    keys, url = key_server
    verifier = verifier_at(url)
    foreign = url.replace("/jwks", "/foreign")
    for header in ({"jku": foreign}, {"x5u": foreign}, {"jku": foreign, "kid": "unknown"}, {"kid": foreign}):
        assert await cause_of(verifier, token(by=KEYS["another"], header=header)) is not None
    assert {"/jwks"} == keys.asked.keys()


@pytest.mark.parametrize("status", [404, 500, 302])
async def test_an_issuer_that_is_away_refuses_and_is_no_fault(key_server: tuple[KeyServer, str], status: int) -> None:
    keys, url = key_server
    keys.status = status
    verifier = verifier_at(url)
    assert await cause_of(verifier, token()) is not None
    keys.status = 200
    assert await until(lambda: cause_of(verifier, token()), lambda cause: cause is None) is None


async def test_keys_stay_good_while_the_issuer_is_away(key_server: tuple[KeyServer, str]) -> None:
    keys, url = key_server
    verifier = verifier_at(url)
    assert await cause_of(verifier, token()) is None
    keys.status = 500
    assert await cause_of(verifier, token(header={"kid": "unknown"})) is not None
    assert await cause_of(verifier, token()) is None


@pytest.mark.parametrize("answer", [{}, {"keys": []}, [], {"keys": [{"kty": "oct", "k": "AA", "kid": "x"}]}])
async def test_an_answer_that_is_no_key_set_refuses_and_is_no_fault(
    key_server: tuple[KeyServer, str], answer: Any
) -> None:
    keys, url = key_server
    keys.keys = answer
    assert await cause_of(verifier_at(url), token()) is not None


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/jwks", "http://host.invalid/jwks"])
async def test_an_address_that_cannot_be_reached_refuses_and_is_no_fault(url: str) -> None:
    assert await cause_of(verifier_at(url), token()) is not None


def test_the_development_key_is_nobody_elses_to_read(tmp_path: Path) -> None:
    Issuer(tmp_path / "issuer")
    assert 0o600 == (tmp_path / "issuer" / "key.pem").stat().st_mode & 0o777
    key_set = json.loads((tmp_path / "issuer" / "jwks.json").read_text())
    assert [{"alg", "crv", "kid", "kty", "use", "x", "y"}] == [set(key) for key in key_set["keys"]]
    private = serialization.load_pem_private_key((tmp_path / "issuer" / "key.pem").read_bytes(), password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
