"""From `./dev up` to a paid order by OAuth 2.0: sign in, exchange, pay, refresh, pay again; and the keys behind it."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata

from payorder.local.issuer import Issuer
from support.oauth import CLIENT, PASSWORD, SCOPE, SERVICE, OAuthClient, oauth_client
from support.up import LOCAL, Running, documented_order, ended, environment, shell


@pytest.fixture
async def client(running: Running) -> AsyncIterator[OAuthClient]:
    async with oauth_client(running.issuer_url) as made:
        yield made


async def verified(client: OAuthClient, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, by the published keys alone."""
    metadata = json.loads((await client.get("/.well-known/oauth-authorization-server")).text)
    published = json.loads((await client.get(metadata["jwks_uri"].removeprefix(client.issuer_url))).text)
    header = jwt.get_unverified_header(token)
    (key,) = [each for each in published["keys"] if each["kid"] == header["kid"]]
    claims = jwt.decode(token, jwt.PyJWK(key), ["ES256"], audience="payorder", issuer=metadata["issuer"])
    return header, claims


async def test_somebody_signs_in_and_pays_and_pays_again_with_a_refreshed_token(
    running: Running, client: OAuthClient
) -> None:
    status, tokens = await client.exchange(await client.code("ada"))
    assert (200, "Bearer", 600, SCOPE) == (status, tokens["token_type"], tokens["expires_in"], tokens["scope"])
    paid = await documented_order(running, token=tokens["access_token"])
    assert ("approved", "ada") == (paid["status"], paid["userId"])

    status, refreshed = await client.refresh(tokens["refresh_token"])
    assert (200, SCOPE) == (status, refreshed["scope"])
    assert tokens["refresh_token"] != refreshed["refresh_token"]
    again = await documented_order(running, token=refreshed["access_token"])
    assert ("approved", "ada") == (again["status"], again["userId"])


async def test_a_refresh_token_that_comes_again_ends_the_login(client: OAuthClient) -> None:
    _, tokens = await client.exchange(await client.code())
    _, refreshed = await client.refresh(tokens["refresh_token"])
    for stolen in (tokens, refreshed):
        assert (400, {"error": "invalid_grant"}) == await client.refresh(stolen["refresh_token"])


async def test_a_code_that_comes_again_ends_the_login(client: OAuthClient) -> None:
    code = await client.code()
    _, tokens = await client.exchange(code)
    status, refused = await client.exchange(code)
    assert (400, "invalid_grant") == (status, refused["error"])
    assert (400, {"error": "invalid_grant"}) == await client.refresh(tokens["refresh_token"])


async def test_a_login_that_has_ended_ends_no_other(client: OAuthClient) -> None:
    _, ended_login = await client.exchange(await client.code())
    _, other = await client.exchange(await client.code())
    for _ in range(2):
        await client.refresh(ended_login["refresh_token"])
    assert 200 == (await client.refresh(other["refresh_token"]))[0]


async def test_a_refreshed_token_may_have_less_and_the_next_one_all_again(client: OAuthClient) -> None:
    _, tokens = await client.exchange(await client.code())
    _, narrowed = await client.refresh(tokens["refresh_token"], path="/token", scope="read:orders")
    assert "read:orders" == narrowed["scope"]
    assert 400 == (await client.refresh(narrowed["refresh_token"], scope="read:orders admin"))[0]
    assert SCOPE == (await client.refresh(narrowed["refresh_token"]))[1]["scope"]


async def test_access_tokens_are_of_rfc_9068_and_verified_by_the_published_keys(client: OAuthClient) -> None:
    _, tokens = await client.exchange(await client.code("grace"))
    header, claims = await verified(client, tokens["access_token"])
    assert ("ES256", "at+jwt") == (header["alg"], header["typ"])
    assert {"iss", "aud", "sub", "scope", "iat", "exp", "jti", "client_id"} == set(claims)
    assert ("grace", CLIENT, SCOPE, 600) == (
        claims["sub"],
        claims["client_id"],
        claims["scope"],
        claims["exp"] - claims["iat"],
    )


@pytest.mark.parametrize(
    ("username", "asked", "granted"),
    [
        ("ada", "read:orders", "read:orders"),
        ("ada", "read:orders write:orders admin", SCOPE),
        ("ada", "admin", None),
        ("admin", "write:orders admin", "write:orders admin"),
        ("admin", "admin act:any-owner", "admin"),
        ("ada", "", SCOPE),
        ("admin", ..., SCOPE),
    ],
)
async def test_granted_is_what_is_asked_and_what_the_user_and_the_client_may_have(
    client: OAuthClient, username: str, asked: Any, granted: str | None
) -> None:
    back = (await client.sign_in(username, scope=asked)).back or {}
    if granted is None:
        assert ("invalid_scope", client.state, client.issuer_url) == (back["error"], back["state"], back["iss"])
        return
    _, tokens = await client.exchange(back["code"])
    assert granted == tokens["scope"] == (await verified(client, tokens["access_token"]))[1]["scope"]


async def test_a_service_gets_a_token_of_its_own(client: OAuthClient) -> None:
    asked = {"grant_type": "client_credentials", "scope": "write:orders act:any-owner admin"}
    status, token = await client.post("/token", asked, Authorization=SERVICE)
    assert (200, "write:orders act:any-owner", False) == (status, token["scope"], "refresh_token" in token)
    _, claims = await verified(client, token["access_token"])
    assert ("payorder-service", "payorder-service") == (claims["sub"], claims["client_id"])
    in_the_form = asked | {"client_id": "payorder-service", "client_secret": "payorder-service-development"}
    assert 200 == (await client.post("/token", in_the_form))[0]


async def test_the_metadata_is_as_rfc_8414_has_it(client: OAuthClient) -> None:
    shown = await client.get("/.well-known/oauth-authorization-server")
    assert shown.text == (await client.get("/.well-known/openid-configuration")).text
    metadata = json.loads(shown.text)
    AuthorizationServerMetadata(metadata).validate()
    assert (client.issuer_url, ["S256"], True) == (
        metadata["issuer"],
        metadata["code_challenge_methods_supported"],
        metadata["authorization_response_iss_parameter_supported"],
    )


# POST /auth/tokens


async def test_a_name_and_a_password_give_a_token_that_pays(running: Running, client: OAuthClient) -> None:
    shown, answer = await client.create_token({"username": "grace", "password": PASSWORD})
    assert (200, {"token", "expiresAt"}, "no-store") == (shown.status, set(answer), shown.headers["Cache-Control"])
    _, claims = await verified(client, answer["token"])
    expires_at = datetime.fromisoformat(answer["expiresAt"])
    assert 0 <= claims["exp"] - expires_at.timestamp() <= 1
    assert expires_at.tzinfo == UTC
    assert "grace" == (await documented_order(running, token=answer["token"]))["userId"]


# What the documentation says

DOCUMENTED = Path(__file__).parents[2] / "docs" / "authentication.md"


@pytest.mark.skipif(any(shutil.which(each) is None for each in ("curl", "openssl")), reason="needs curl and openssl")
async def test_the_documented_steps_pay_an_order(running: Running) -> None:
    blocks = re.findall("^```sh\n(.*?)^```$", DOCUMENTED.read_text(), re.DOTALL | re.MULTILINE)
    script = "set -o pipefail\n" + "echo\n".join(blocks)
    script = script.replace("http://127.0.0.1:8082", running.issuer_url).replace("http://127.0.0.1:8080", running.url)
    status, shown = await shell(script)
    assert (0, True) == (status, '"status":"succeeded"' in shown), shown
    assert 3 == shown.count('"access_token"')
    assert 2 == shown.count('"refresh_token"')


# Keys


async def test_tokens_of_before_and_after_a_rotation_pay(running: Running, client: OAuthClient) -> None:
    """Of one rotation: Envoy does not ask for the key after the next one before it has kept this one for a while."""
    tokens, key_ids = [], []
    for turn in range(2):
        if turn:
            await rotate(running.data)
        _, answer = await client.exchange(await client.code())
        tokens.append(answer["access_token"])
        key_ids.append(jwt.get_unverified_header(answer["access_token"])["kid"])
    assert 2 == len(set(key_ids))
    for token in tokens:
        assert "approved" == (await documented_order(running, token=token))["status"]


def test_the_next_key_is_published_before_it_signs(tmp_path: Path) -> None:
    for _ in range(3):
        issuer = Issuer(tmp_path)
        before = {key["kid"] for key in json.loads(issuer.jwks_path.read_text())["keys"]}
        issuer.rotate()
        token = Issuer(tmp_path).token(subject="ada", scope=SCOPE)
        assert jwt.get_unverified_header(token)["kid"] in before


def test_a_retired_key_is_published_as_long_as_its_tokens_are_valid(tmp_path: Path) -> None:
    tokens = []
    for _ in range(2):
        issuer = Issuer(tmp_path)
        tokens.append(issuer.token(subject="ada", scope=SCOPE))
        issuer.rotate()
    key_set = json.loads(issuer.jwks_path.read_text())
    retired = {key["kid"]: key for key in key_set["keys"] if "exp" in key}
    for token in tokens:
        key = retired[jwt.get_unverified_header(token)["kid"]]
        assert key["exp"] > jwt.decode(token, options={"verify_signature": False})["exp"]

    key["exp"] = 1
    issuer.jwks_path.write_text(json.dumps(key_set))
    Issuer(tmp_path).rotate()
    published = {each["kid"] for each in json.loads(issuer.jwks_path.read_text())["keys"]}
    assert (4, False) == (len(published), key["kid"] in published)


@pytest.mark.parametrize("lost", ["key.pem", "next.pem", "jwks.json"])
def test_what_is_missing_in_the_folder_is_made_anew(tmp_path: Path, lost: str) -> None:
    Issuer(tmp_path).rotate()
    (tmp_path / lost).unlink()
    token = Issuer(tmp_path).token(subject="ada", scope=SCOPE)
    Issuer(tmp_path).rotate()
    published = {key["kid"] for key in json.loads((tmp_path / "jwks.json").read_text())["keys"]}
    assert jwt.get_unverified_header(token)["kid"] in published
    assert jwt.get_unverified_header(Issuer(tmp_path).token(subject="ada", scope=SCOPE))["kid"] in published


async def rotate(data: Path) -> None:
    process = await asyncio.create_subprocess_exec(LOCAL, "rotate", "--data", data, env=environment())
    assert 0 == (await ended(process))[0]
