"""What the development issuer refuses, and that it then gives nothing away: no code, no token, no redirect."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from payorder.local.issuer import Issuer
from payorder.local.issuer.accounts import CLIENTS, USERS
from payorder.local.issuer.logins import Login, RefreshToken, Secrets
from payorder.local.issuer.oauth import SHORT, Lifetimes
from payorder.local.issuer.server import application
from support.oauth import PASSWORD, REDIRECT_URI, SERVICE, OAuthClient, oauth_client


@asynccontextmanager
async def serving(folder: Path, lifetimes: Lifetimes = SHORT) -> AsyncIterator[OAuthClient]:
    """The issuer of an empty folder, in this process."""
    runner = web.AppRunner(application(folder, lifetimes))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with oauth_client(Issuer(folder, f"http://{host}:{port}").name) as client:
            yield client
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
async def issuer_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with serving(tmp_path_factory.mktemp("issuer")) as client:
        yield client.issuer_url


@pytest.fixture
async def client(issuer_url: str) -> AsyncIterator[OAuthClient]:
    async with oauth_client(issuer_url) as made:
        yield made


# Authorization requests

TOLD_THE_CLIENT: list[tuple[dict[str, Any], str]] = [
    ({"code_challenge": ...}, "invalid_request"),
    ({"code_challenge": ..., "code_challenge_method": ...}, "invalid_request"),
    ({"code_challenge_method": ...}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"code_challenge_method": "s256"}, "invalid_request"),
    ({"code_challenge": "short"}, "invalid_request"),
    ({"code_challenge": "'" * 43}, "invalid_request"),
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": "code id_token"}, "unsupported_response_type"),
    ({"response_type": ...}, "unsupported_response_type"),
    ({"scope": "leak"}, "invalid_scope"),
    ({"scope": "read:orders leak"}, "invalid_scope"),
    ({"scope": "act:any-owner"}, "invalid_scope"),
]


@pytest.mark.parametrize(("changes", "error"), TOLD_THE_CLIENT)
async def test_what_is_wrong_with_a_request_is_told_its_client_before_anybody_signs_in(
    client: OAuthClient, changes: dict[str, Any], error: str
) -> None:
    shown = await client.open(**changes)
    back = shown.back or {}
    assert (303, error, client.state, client.issuer_url) == (shown.status, back["error"], back["state"], back["iss"])
    assert shown.headers["Location"].startswith(f"{REDIRECT_URI}?")
    assert "leak" not in shown.headers["Location"]


ELSEWHERE = (
    "https://evil.example/callback",
    "http://evil.example/callback",
    "//evil.example/callback",
    "http://127.0.0.1.evil.example/callback",
    "http://127.0.0.1@evil.example/callback",
    "http://evil.example@127.0.0.1:4711/callback",
    "http://evil.example#@127.0.0.1/callback",
    "http://evil.example?@127.0.0.1/callback",
    "http://evil.example\\@127.0.0.1/callback",
    "http://127.0.0.1:4711\\@evil.example/callback",
    "http://127.0.0.1:4711@evil.example/callback",
    "http://127.0.0.1:evil.example/callback",
    "http://127.0.0.1:0/callback",
    "http://127.0.0.1:471199/callback",
    "http://127.0.0.1:4711/callback/",
    "http://127.0.0.1:4711/callback/../elsewhere",
    "http://127.0.0.1:4711/elsewhere",
    "http://127.0.0.1:4711/callback?next=//evil.example",
    "http://127.0.0.1:4711/callback#fragment",
    "http://127.0.0.1:4711/callback\r\nSet-Cookie: a=b",
    "http://127.0.0.1:4711/callback\n",
    "http://127.0.0.1:4711/callback ",
    " http://127.0.0.1:4711/callback",
    "http://127.1:4711/callback",
    "http://127a0a0a1:4711/callback",
    "http://2130706433:4711/callback",
    "http://0.0.0.0:4711/callback",
    "http://[::]:4711/callback",
    "http://\uff11\uff12\uff17.0.0.1:4711/callback",
    "http://127.0.0.1:\u0664\u0667/callback",
    "https://127.0.0.1:4711/callback",
    "HTTP://127.0.0.1:4711/callback",
    "javascript:alert(1)//http://127.0.0.1:4711/callback",
    'http://127.0.0.1:4711/callback"><script>',
    "",
    ...,
)


@pytest.mark.parametrize("redirect_uri", ELSEWHERE)
@pytest.mark.parametrize("changes", [{}, {"response_type": "leak"}, {"code_challenge": ...}])
async def test_a_browser_is_sent_nowhere_that_is_not_registered(
    client: OAuthClient, redirect_uri: Any, changes: dict[str, Any]
) -> None:
    shown = await client.open(redirect_uri=redirect_uri, **changes)
    assert (400, None) == (shown.status, shown.back)
    assert not any(text in shown.text for text in ("evil", "<script", "leak"))


@pytest.mark.parametrize("port", ["", ":1", ":65535"])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_a_client_on_this_machine_may_listen_on_any_port(client: OAuthClient, host: str, port: str) -> None:
    redirect_uri = f"http://{host}{port}/callback"
    code = await client.code(redirect_uri=redirect_uri)
    assert 200 == (await client.exchange(code, redirect_uri=redirect_uri))[0]


@pytest.mark.parametrize("client_id", ["leak", "", ..., "payorder-service"])
async def test_a_client_that_is_not_known_here_is_told_nothing(client: OAuthClient, client_id: Any) -> None:
    shown = await client.open(client_id=client_id)
    assert (400, None, False) == (shown.status, shown.back, "leak" in shown.text)


@pytest.mark.parametrize("name", ["client_id", "redirect_uri", "scope", "state", "response_type", "code_challenge"])
async def test_no_parameter_may_come_twice(client: OAuthClient, name: str) -> None:
    asked = client.asked()
    shown = await client.get("/authorize", [*asked.items(), (name, asked[name])])
    assert (True, False) == (shown.status in (303, 400), "code=" in shown.headers.get("Location", ""))


# The login page


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("ada", "leak"),
        ("ada", ""),
        ("leak", PASSWORD),
        ("", PASSWORD),
        ("Ada", PASSWORD),
        ("ada\0", PASSWORD),
    ],
)
async def test_who_is_not_known_and_who_errs_are_told_the_same(
    client: OAuthClient, username: str, password: str
) -> None:
    shown = await client.sign_in(username, password)
    assert (403, None) == (shown.status, shown.back)
    assert "There is no user of this name with this password." in shown.text
    assert shown.form[0]


async def test_what_was_typed_is_escaped_and_a_password_never_repeated(client: OAuthClient) -> None:
    shown = await client.sign_in('"><script>alert(1)</script>$token', "leak")
    assert 'value="&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;$token"' in shown.text
    assert not any(text in shown.text for text in ("<script", "leak"))
    opened = await client.open(state='"><script>')
    assert "<script" not in opened.text


async def test_who_cancels_is_sent_back_without_a_code(client: OAuthClient) -> None:
    back = (await client.send(await client.open(), choice="deny")).back or {}
    assert ("access_denied", client.state, client.issuer_url) == (back["error"], back["state"], back["iss"])


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {"token": "another"}),
        ({}, {"token": ""}),
        ({}, {"token": ...}),
        ({"Sec-Fetch-Site": "cross-site"}, {}),
        ({"Sec-Fetch-Site": "same-site"}, {}),
    ],
)
async def test_a_form_that_another_site_sends_signs_nobody_in(
    client: OAuthClient, headers: dict[str, str], fields: dict[str, Any]
) -> None:
    page = await client.open()
    shown = await client.send(page, headers, username="ada", password=PASSWORD, **fields)
    assert (403, None) == (shown.status, shown.back)


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {}),
        ({"Cookie": "payorder_login=another"}, {}),
        ({"Cookie": "payorder_login="}, {"token": ""}),
        ({"Cookie": "payorder_login=\u00e9"}, {}),
    ],
)
async def test_a_form_without_the_cookie_of_its_page_signs_nobody_in(
    client: OAuthClient, issuer_url: str, headers: dict[str, str], fields: dict[str, str]
) -> None:
    page = await client.open()
    async with oauth_client(issuer_url) as another:
        shown = await another.send(page, headers, username="ada", password=PASSWORD, **fields)
    assert (403, None) == (shown.status, shown.back)


async def test_two_pages_that_are_open_at_once_can_both_be_sent(client: OAuthClient) -> None:
    pages = [await client.open(), await client.open()]
    answers = [await client.send(page, username="ada", password=PASSWORD) for page in pages]
    assert [True, True] == ["code" in (shown.back or {}) for shown in answers]


async def test_pages_run_no_script_and_stand_in_no_frame(client: OAuthClient) -> None:
    pages = [await client.get(path) for path in ("/", "/callback", "/callback?code=abc123", "/authorize")]
    for shown in (*pages, await client.open()):
        policy = shown.headers["Content-Security-Policy"]
        assert all(part in policy for part in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"))
        assert ("no-store", "nosniff") == (shown.headers["Cache-Control"], shown.headers["X-Content-Type-Options"])


@pytest.mark.parametrize("code", ["", "$(reboot)", "a b", "a;b", "a\nb", "`b`", "\u0661"])
async def test_the_command_to_paste_has_a_code_in_it_and_nothing_else(client: OAuthClient, code: str) -> None:
    assert "curl" in (await client.get("/callback", {"code": "abc123"})).text
    assert "curl" not in (await client.get("/callback", {"code": code})).text


async def test_a_name_that_leads_here_is_not_served(client: OAuthClient) -> None:
    for host, expected in (("evil.example", 421), ("localhost:1", 200), ("127.0.0.1", 200)):
        async with client._session.get(f"{client.issuer_url}/jwks", headers={"Host": host}) as response:
            assert expected == response.status


# Tokens

BAD_EXCHANGES: list[tuple[dict[str, Any], str]] = [
    ({"code_verifier": "x" * 43}, "invalid_grant"),
    ({"code_verifier": ...}, "invalid_request"),
    ({"code_verifier": ""}, "invalid_request"),
    ({"code_verifier": "short"}, "invalid_request"),
    ({"code_verifier": "\u00e9" * 43}, "invalid_request"),
    ({"redirect_uri": "http://127.0.0.1:4712/callback"}, "invalid_grant"),
    ({"redirect_uri": ...}, "invalid_grant"),
    ({"code": "leak"}, "invalid_grant"),
    ({"code": ...}, "invalid_request"),
    ({"client_id": "leak"}, "invalid_client"),
    ({"client_id": ...}, "invalid_client"),
    ({"client_id": "payorder-service"}, "invalid_client"),
    ({"client_secret": "leak"}, "invalid_client"),
    ({"grant_type": "password", "username": "ada", "password": PASSWORD}, "unsupported_grant_type"),
    ({"grant_type": "leak"}, "unsupported_grant_type"),
    ({"grant_type": ...}, "unsupported_grant_type"),
    ({"grant_type": "client_credentials"}, "invalid_client"),
]


@pytest.mark.parametrize(("changes", "error"), BAD_EXCHANGES)
async def test_a_code_alone_is_no_token(client: OAuthClient, changes: dict[str, Any], error: str) -> None:
    code = await client.code()
    status, answer = await client.exchange(**({"code": code} | changes))
    assert (True, error, False) == (status in (400, 401), answer["error"], "leak" in json.dumps(answer))
    assert "access_token" not in answer
    # What was refused has used nothing up.
    assert 200 == (await client.exchange(code))[0]


async def test_the_challenge_itself_is_no_verifier(client: OAuthClient) -> None:
    assert "invalid_grant" == (await client.exchange(await client.code(), code_verifier=client.challenge))[1]["error"]


async def test_a_parameter_that_comes_twice_is_refused(client: OAuthClient) -> None:
    form = [("grant_type", "client_credentials"), ("scope", "read:orders"), ("scope", "write:orders")]
    status, answer = await client.post("/token", form, Authorization=SERVICE)
    assert (400, "invalid_request") == (status, answer["error"])


async def test_a_refresh_token_is_good_for_refreshing_alone(client: OAuthClient) -> None:
    code = await client.code()
    refused = [await client.refresh(code, grant_type="authorization_code", code=code), await client.refresh(code)]
    _, tokens = await client.exchange(code)
    refresh_token = tokens["refresh_token"]
    refused += [
        await client.exchange(refresh_token),
        await client.refresh(tokens["access_token"]),
        await client.refresh(...),
        await client.refresh(refresh_token, client_id="payorder-service"),
    ]
    errors = ["unsupported_grant_type", "invalid_grant", "invalid_grant", "invalid_grant", "invalid_request"]
    assert [*errors, "invalid_client"] == [answer["error"] for _, answer in refused]
    assert 200 == (await client.refresh(refresh_token))[0]


@pytest.mark.parametrize(
    ("headers", "fields", "error"),
    [
        ({}, {}, "invalid_client"),
        ({"Authorization": "Basic cGF5b3JkZXItc2VydmljZTpsZWFr"}, {}, "invalid_client"),
        ({"Authorization": "Basic leak"}, {}, "invalid_client"),
        ({"Authorization": "Basic //79/A=="}, {}, "invalid_client"),
        ({}, {"client_id": "payorder-service"}, "invalid_client"),
        ({}, {"client_id": "payorder-service", "client_secret": "leak"}, "invalid_client"),
        ({"Authorization": SERVICE}, {"scope": "admin"}, "invalid_scope"),
        ({"Authorization": SERVICE}, {"scope": "leak"}, "invalid_scope"),
        ({}, {"client_id": "payorder-development"}, "invalid_client"),
    ],
)
async def test_a_service_without_its_secret_or_with_another_wish_gets_none(
    client: OAuthClient, headers: dict[str, str], fields: dict[str, str], error: str
) -> None:
    status, answer = await client.post("/token", {"grant_type": "client_credentials"} | fields, **headers)
    assert (True, error, False) == (status in (400, 401), answer["error"], "leak" in json.dumps(answer))


@pytest.mark.parametrize("path", ["/token", "/refresh", "/authorize"])
@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/x-www-form-urlencoded; charset=leak", b"grant_type=refresh_token", (400,)),
        ("application/x-www-form-urlencoded", b"\xff=\xff", (400,)),
        ("multipart/form-data", b"leak", (400,)),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 20_000, (400, 413)),
    ],
)
async def test_a_form_that_cannot_be_read_is_no_fault(
    client: OAuthClient, path: str, content_type: str, body: bytes, expected: tuple[int, ...]
) -> None:
    headers = {"Content-Type": content_type}
    async with client._session.post(client.issuer_url + path, data=body, headers=headers) as response:
        assert (True, False) == (response.status in expected, "leak" in await response.text())


def test_a_secret_is_good_for_the_client_that_it_was_given_to() -> None:
    public, service = CLIENTS["payorder-development"], CLIENTS["payorder-service"]
    login = Login(USERS["ada"], public.client_id, "read:orders", expires_at=math.inf)
    secrets: Secrets[RefreshToken] = Secrets()
    secrets.keep("secret", RefreshToken(login, math.inf))
    assert secrets.find("secret", service) is None
    assert secrets.find("secret", public) is not None


# What ends


async def test_a_code_that_has_expired_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, replace(SHORT, code_seconds=0)) as client:
        status, answer = await client.exchange(await client.code())
        assert (400, "invalid_grant") == (status, answer["error"])


async def test_a_login_that_has_expired_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, replace(SHORT, login_seconds=0)) as client:
        _, tokens = await client.exchange(await client.code())
        assert (400, {"error": "invalid_grant"}) == await client.refresh(tokens["refresh_token"])


@pytest.mark.parametrize("username", ["ada", "nobody"])
async def test_a_name_given_with_wrong_passwords_is_not_looked_at_for_a_while(tmp_path: Path, username: str) -> None:
    async with serving(tmp_path) as client:
        wrong = {"username": username, "password": "wrong"}
        assert [401] * 4 == [(await client.create_token(wrong))[0].status for _ in range(4)]
        assert 403 == (await client.sign_in(username, "wrong")).status
        for password in ("wrong", PASSWORD):
            shown, problem = await client.create_token(wrong | {"password": password})
            assert (429, "60", "RATE_LIMITED") == (shown.status, shown.headers["Retry-After"], problem["reason"])
            assert (429, None) == ((page := await client.sign_in(username, password)).status, page.back)
        assert 200 == (await client.create_token({"username": "grace", "password": PASSWORD}))[0].status


# POST /auth/tokens

GOOD = {"username": "ada", "password": PASSWORD}


@pytest.mark.parametrize(
    ("body", "status", "reason", "faults"),
    [
        (b"", 400, "BAD_REQUEST", {}),
        (b"{", 400, "BAD_REQUEST", {}),
        (b"\xff", 400, "BAD_REQUEST", {}),
        (b"[" * 10_000, 400, "BAD_REQUEST", {}),
        ([], 400, "BAD_REQUEST", {}),
        ("leak", 400, "BAD_REQUEST", {}),
        (GOOD | {"username": 1}, 400, "BAD_REQUEST", {}),
        (GOOD | {"password": None}, 400, "BAD_REQUEST", {}),
        ({}, 422, "INVALID_FIELDS", {"username": "required", "password": "required"}),
        (GOOD | {"username": ""}, 422, "INVALID_FIELDS", {"username": "required"}),
        (GOOD | {"password": "x" * 201}, 422, "INVALID_FIELDS", {"password": "too_long"}),
        (GOOD | {"leak": 1}, 422, "INVALID_FIELDS", {"": "unknown_field"}),
        (GOOD | {"password": "leak"}, 401, "UNAUTHENTICATED", {}),
        (GOOD | {"password": "\ud800"}, 401, "UNAUTHENTICATED", {}),
        (GOOD | {"username": "leak"}, 401, "UNAUTHENTICATED", {}),
        (b" " * 20_000, 413, "REQUEST_TOO_LARGE", {}),
    ],
)
async def test_a_bad_request_for_a_token_is_a_problem_as_everywhere(
    tmp_path: Path, body: Any, status: int, reason: str, faults: dict[str, str]
) -> None:
    async with serving(tmp_path) as client:
        shown, problem = await client.create_token(body)
    assert (status, reason, faults) == (
        shown.status,
        problem["reason"],
        {fault["field"]: fault["code"] for fault in problem["errors"]},
    )
    assert ("application/problem+json", False) == (shown.headers["Content-Type"].split(";")[0], "leak" in shown.text)
    assert ["type", "title", "status", "detail", "instance", "reason", "errors"] == list(problem)
    assert (status == 401) is ("WWW-Authenticate" in shown.headers)


async def test_its_problems_have_the_words_of_the_service(client: OAuthClient) -> None:
    from payorder.edge.status import REASONS  # noqa: PLC0415 - for this alone
    from payorder.local.issuer.create_token import _PROBLEMS  # noqa: PLC0415 - as above

    shared = {reason: title for reason, title, _ in _PROBLEMS.values() if reason in REASONS}
    assert {"BAD_REQUEST", "UNAUTHENTICATED", "INVALID_FIELDS", "RATE_LIMITED"} == set(shared)
    assert {reason: REASONS[reason].title for reason in shared} == shared


async def test_a_form_cannot_ask_for_a_token(client: OAuthClient) -> None:
    """A page of another site could send one, and no browser would ask first."""
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        shown, problem = await client.create_token(json.dumps(GOOD).encode(), content_type)
        assert (415, "UNSUPPORTED_MEDIA_TYPE") == (shown.status, problem["reason"])
