"""Issuers over HTTP: how their keys are found, how seldom they are asked, and what they cannot make us do."""

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from payorder.adapters.tokens import remote
from payorder.adapters.tokens.remote import Read, RemoteKeySet, discovery_url, key_set_at, key_set_of
from payorder.adapters.tokens.verifier import JwtVerifier
from support.certificates import Authority
from support.issuers import (
    DISCOVERY,
    JWKS,
    RULES,
    HttpIssuer,
    cause_of,
    encoded,
    jwk,
    new_key,
    new_keys,
    running_issuer,
)
from support.service import until
from support.stack import free_port

KEYS, OTHER_KEYS = new_keys(), new_keys()
ONCE = Counter({DISCOVERY: 1, JWKS: 1})
UNKNOWN = "issuer has no such key"


@pytest.fixture
async def issuer() -> AsyncIterator[HttpIssuer]:
    async with running_issuer(KEYS) as running:
        yield running


class Verifying:
    """A verifier of issuers that are found by discovery, and why their keys could not be read."""

    def __init__(self, *issuers: str, allows_http: bool = True, read: Read | None = None) -> None:
        self.failures: list[str] = []
        self.keys = {
            issuer: RemoteKeySet(read or key_set_of(issuer, allows_http=allows_http), on_failure=self.failures.append)
            for issuer in issuers
        }
        self.verifier = JwtVerifier(self.keys, RULES)

    async def cause(self, token: str) -> str | None:
        return await cause_of(self.verifier, token)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an unknown key the issuer is asked again at once, and in any case very soon."""
    monkeypatch.setattr(remote, "_ASK_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(remote, "_ASK_UNKNOWN_SECONDS", 0.0)
    monkeypatch.setattr(remote, "_ASK_AGAIN_SECONDS", 0.05)


# How keys are found


@pytest.mark.parametrize(
    ("issuer_name", "expected"),
    [
        ("https://a.example", "https://a.example/.well-known/openid-configuration"),
        ("https://a.example/", "https://a.example/.well-known/openid-configuration"),
        ("https://a.example/realms/b", "https://a.example/realms/b/.well-known/openid-configuration"),
        ("https://a.example/realms/b/", "https://a.example/realms/b/.well-known/openid-configuration"),
    ],
)
def test_the_discovery_document_is_where_the_standard_says(issuer_name: str, expected: str) -> None:
    assert expected == discovery_url(issuer_name)


async def test_keys_are_found_by_discovery_and_asked_for_once(issuer: HttpIssuer) -> None:
    verifying = Verifying(issuer.issuer)
    assert Counter() == issuer.asked
    for token in [issuer.token(algorithm) for algorithm in KEYS] * 10:
        assert await verifying.cause(token) is None
    assert (ONCE, []) == (issuer.asked, verifying.failures)


async def test_many_callers_at_the_start_ask_once(issuer: HttpIssuer) -> None:
    verifying = Verifying(issuer.issuer)
    assert [None] * 50 == await asyncio.gather(*(verifying.cause(issuer.token()) for _ in range(50)))
    assert ONCE == issuer.asked


async def test_a_key_set_at_an_url_needs_no_discovery(issuer: HttpIssuer) -> None:
    verifying = Verifying("urn:issuer", read=key_set_at(issuer.issuer + JWKS))
    assert await verifying.cause(issuer.token(iss="urn:issuer")) is None
    assert Counter({JWKS: 1}) == issuer.asked


async def test_each_issuer_is_believed_about_its_own_tokens_alone(issuer: HttpIssuer) -> None:
    async with running_issuer(OTHER_KEYS) as other:
        verifying = Verifying(issuer.issuer, other.issuer)
        assert [None, None] == [await verifying.cause(each.token()) for each in (issuer, other)]
        crossed = [
            issuer.token(iss=other.issuer),
            other.token(iss=issuer.issuer),
            issuer.token(iss="https://x.example"),
        ]
        assert ["InvalidSignatureError", "InvalidSignatureError", "KeyError"] == [
            await verifying.cause(token) for token in crossed
        ]


async def test_subjects_of_two_issuers_are_never_one(issuer: HttpIssuer) -> None:
    async with running_issuer(OTHER_KEYS) as other:
        verifier = Verifying(issuer.issuer, other.issuer).verifier
        mine, others = [await verifier.verify(each.token(sub="alice"), None) for each in (issuer, other)]
        assert ("alice", f"{other.issuer}#alice") == (mine.subject, others.subject)
        passing = [
            issuer.token(sub=others.subject),
            other.token(sub=f"{other.issuer}#alice"),
            other.token(sub="a" * 255),
        ]
        assert [False] * 3 == [await cause_of(verifier, token) is None for token in passing]


# How seldom the issuer is asked


async def test_unknown_keys_are_no_storm_on_the_issuer(issuer: HttpIssuer) -> None:
    verifying = Verifying(issuer.issuer)
    _, body, signature = issuer.token().split(".")
    headers = (f'{{"alg":"ES256","typ":"at+jwt","kid":"unknown {number}"}}' for number in range(10_000))
    causes = await asyncio.gather(
        *(verifying.cause(f"{encoded(header.encode())}.{body}.{signature}") for header in headers)
    )
    assert ({UNKNOWN}, ONCE) == (set(causes), issuer.asked)
    assert (UNKNOWN, ONCE) == (await verifying.cause(issuer.token(header={"kid": "later"})), issuer.asked)


@pytest.mark.usefixtures("soon")
async def test_a_new_key_is_accepted_without_a_restart_and_the_old_one_until_it_is_taken_out(
    issuer: HttpIssuer,
) -> None:
    verifying = Verifying(issuer.issuer)
    old = issuer.token()
    assert await verifying.cause(old) is None
    new = new_key("ES256")
    new_token = issuer.token(by=new, header={"kid": "new"})

    issuer.answers[JWKS] = issuer.saying(jwk("ES256", KEYS["ES256"]), jwk("ES256", new, kid="new"))
    assert [None, None] == [await verifying.cause(token) for token in (new_token, old)]
    issuer.answers[JWKS] = issuer.saying(jwk("ES256", new, kid="new"))
    assert await until(lambda: verifying.cause(old), lambda cause: cause is not None) == UNKNOWN
    assert await verifying.cause(new_token) is None


async def test_after_a_long_silence_a_withdrawn_key_is_good_for_nothing(
    issuer: HttpIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifying = Verifying(issuer.issuer)
    seen, unseen = issuer.token(), issuer.token(sub="bob")
    assert await verifying.cause(seen) is None
    issuer.answers[JWKS] = issuer.saying(jwk("ES256", new_key("ES256"), kid="new"))
    monkeypatch.setattr(remote, "_ASK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(remote, "_KEPT_SECONDS", 0.0)
    assert [UNKNOWN, UNKNOWN] == [await verifying.cause(token) for token in (seen, unseen)]


@pytest.mark.usefixtures("soon")
async def test_keys_that_stay_the_same_are_read_again_and_no_token_is_verified_again(issuer: HttpIssuer) -> None:
    verifying = Verifying(issuer.issuer)
    assert await verifying.cause(issuer.token()) is None
    key = await verifying.keys[issuer.issuer].find("key-ES256", "ES256")

    async def asked() -> int:
        assert await verifying.keys[issuer.issuer].find("key-ES256", "ES256") is key
        return issuer.asked[JWKS]

    assert await until(asked, lambda count: count > 2) > 2


async def test_a_caller_that_is_cut_off_takes_the_answer_from_nobody(issuer: HttpIssuer) -> None:
    asked, released = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        asked.set()
        await released.wait()
        return web.json_response(issuer.key_set)

    issuer.answers[JWKS] = slow
    verifying = Verifying(issuer.issuer)
    impatient = asyncio.create_task(verifying.cause(issuer.token()))
    await asked.wait()
    impatient.cancel()
    patient = asyncio.create_task(verifying.cause(issuer.token()))
    await asyncio.gather(impatient, return_exceptions=True)
    released.set()
    assert (True, None, ONCE) == (impatient.cancelled(), await patient, issuer.asked)


@pytest.mark.usefixtures("soon")
async def test_a_known_key_waits_for_nobody(issuer: HttpIssuer) -> None:
    verifying = Verifying(issuer.issuer)
    assert await verifying.cause(issuer.token()) is None
    asked = asyncio.Event()

    async def silent(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        return web.Response()

    issuer.answers[DISCOVERY] = silent
    while not asked.is_set():
        async with asyncio.timeout(remote.ASK_TIMEOUT_SECONDS / 2):
            assert await verifying.cause(issuer.token()) is None
        await asyncio.sleep(0.01)
    async with asyncio.timeout(remote.ASK_TIMEOUT_SECONDS / 2):
        assert await verifying.cause(issuer.token()) is None
    await verifying.verifier.close()


# An issuer that is away, or lies


async def test_an_issuer_that_is_away_at_the_start_is_believed_when_it_is_back() -> None:
    port = free_port()
    verifying = Verifying(f"http://127.0.0.1:{port}")
    async with running_issuer(KEYS) as elsewhere:
        assert UNKNOWN == await verifying.cause(elsewhere.token(iss=f"http://127.0.0.1:{port}"))
    assert ["ClientConnectorError"] == verifying.failures
    async with running_issuer(KEYS, port=port) as issuer:
        assert await until(lambda: verifying.cause(issuer.token()), lambda cause: cause is None) is None


@pytest.mark.usefixtures("soon")
async def test_keys_stay_good_while_the_issuer_is_away() -> None:
    async with running_issuer(KEYS) as issuer:
        verifying = Verifying(issuer.issuer)
        assert await verifying.cause(issuer.token()) is None
    assert UNKNOWN == await verifying.cause(issuer.token(header={"kid": "unknown"}))
    assert (None, True) == (await verifying.cause(issuer.token(sub="bob")), len(verifying.failures) > 0)


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"issuer": "https://issuer.example"}, "the discovery document is not this issuer's"),
    "a slash more": ({"issuer": "{issuer}/"}, "the discovery document is not this issuer's"),
    "no issuer": ({"issuer": None}, "the discovery document is not this issuer's"),
    "no jwks_uri": ({"jwks_uri": None}, "the discovery document names no acceptable jwks_uri"),
    "a file": ({"jwks_uri": "file:///etc/passwd"}, "the discovery document names no acceptable jwks_uri"),
    "a path": ({"jwks_uri": "/jwks"}, "the discovery document names no acceptable jwks_uri"),
    "no URL": ({"jwks_uri": "https://[x"}, "the discovery document names no acceptable jwks_uri"),
    "a list": ({"jwks_uri": ["https://issuer.example"]}, "the discovery document names no acceptable jwks_uri"),
    "a port that is closed": ({"jwks_uri": "http://127.0.0.1:1/jwks"}, "ClientConnectorError"),
    "no host": ({"jwks_uri": "http:///jwks"}, "InvalidUrlClientError"),
}


@pytest.mark.parametrize(("changes", "failure"), LIES.values(), ids=LIES)
async def test_a_discovery_document_that_lies_gives_no_keys(
    issuer: HttpIssuer, changes: dict[str, Any], failure: str
) -> None:
    issuer.discovery |= {
        name: value.replace("{issuer}", issuer.issuer) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    verifying = Verifying(issuer.issuer)
    assert (UNKNOWN, [failure]) == (await verifying.cause(issuer.token()), verifying.failures)
    assert Counter({DISCOVERY: 1}) == issuer.asked


async def test_in_production_keys_come_by_https_alone(issuer: HttpIssuer) -> None:
    verifying = Verifying(issuer.issuer, allows_http=False)
    assert UNKNOWN == await verifying.cause(issuer.token())
    assert ["the discovery document names no acceptable jwks_uri"] == verifying.failures
    assert Counter({DISCOVERY: 1}) == issuer.asked


async def redirect(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"location": f"http://{request.host}/elsewhere"})


async def ten_megabytes(_: web.Request) -> web.Response:
    return web.Response(body=b'{"x":"' + b"x" * 10_000_000 + b'"}')


async def endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b" " * 65536)


async def compressed(_: web.Request) -> web.Response:
    return web.Response(body=gzip.compress(b"[" + b" " * 10_000_000 + b"]"), headers={"content-encoding": "gzip"})


async def nested(_: web.Request) -> web.Response:
    return web.Response(body=b"[" * 100_000)


async def failing(_: web.Request) -> web.Response:
    return web.Response(status=500)


async def cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def no_keys(_: web.Request) -> web.Response:
    return web.json_response({"keys": [{"kty": "oct", "k": "AA", "kid": "key-ES256"}]})


ANSWERS = {
    "a redirect": (redirect, "status 302"),
    "10 MB": (ten_megabytes, "too long"),
    "without an end": (endless, "too long"),
    "compressed": (compressed, "UnicodeDecodeError"),
    "nested": (nested, "RecursionError"),
    "an error": (failing, "status 500"),
    "a connection that breaks": (cut, "ServerDisconnectedError"),
}


@pytest.mark.parametrize(("answer", "failure"), ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
async def test_an_answer_that_is_no_document_refuses_and_is_no_fault(
    issuer: HttpIssuer, path: str, answer: Any, failure: str
) -> None:
    issuer.answers[path] = answer
    verifying = Verifying(issuer.issuer)
    assert (UNKNOWN, [failure]) == (await verifying.cause(issuer.token()), verifying.failures)
    assert "/elsewhere" not in issuer.asked


async def test_keys_that_are_of_no_use_are_no_keys(issuer: HttpIssuer) -> None:
    issuer.answers[JWKS] = no_keys
    verifying = Verifying(issuer.issuer)
    assert (UNKNOWN, ["no usable key in the set"]) == (await verifying.cause(issuer.token()), verifying.failures)


async def test_an_issuer_that_is_too_slow_is_given_up(issuer: HttpIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(200):
            await answer.write(b" ")
            await asyncio.sleep(0.01)
        return answer

    monkeypatch.setattr(remote, "ASK_TIMEOUT_SECONDS", 0.1)
    issuer.answers[JWKS] = slow
    verifying = Verifying(issuer.issuer)
    assert (UNKNOWN, ["no answer in time"]) == (await verifying.cause(issuer.token()), verifying.failures)


async def test_the_environment_leads_nowhere_else(issuer: HttpIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await Verifying(issuer.issuer).cause(issuer.token()) is None


async def test_a_certificate_that_nobody_vouches_for_is_not_believed(tmp_path: Path) -> None:
    async with running_issuer(KEYS, tls=Authority(tmp_path).certificate("issuer").server_context()) as issuer:
        verifying = Verifying(issuer.issuer, allows_http=False)
        assert UNKNOWN == await verifying.cause(issuer.token())
        assert (["ClientConnectorCertificateError"], Counter()) == (verifying.failures, issuer.asked)
