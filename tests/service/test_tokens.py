"""Which tokens are accepted, and that no other is: the verifier on keys in a file."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from payorder.adapters.tokens import verifier as verifier_module
from payorder.adapters.tokens.files import DisabledSubjects, FileKeySet
from payorder.adapters.tokens.verifier import JwtVerifier, TokenRules
from payorder.domain.errors import Unauthenticated
from payorder.local.issuer import Issuer
from support.forged_tokens import ACCEPTED, DAY, REFUSED
from support.issuers import RULES, Signer, cause_of, encoded, jwk, new_keys

ISSUER = "https://issuer.example"
SIGNER = Signer(ISSUER, new_keys())
token, ALL_KEYS = SIGNER.token, SIGNER.key_set


def jwk_of(algorithm: str, **changes: Any) -> dict[str, Any]:
    return jwk(algorithm, SIGNER.keys[algorithm], **changes)


def verifier_of(path: Path) -> JwtVerifier:
    return JwtVerifier({ISSUER: FileKeySet(path)}, RULES)


def write_keys(path: Path, keys: Mapping[str, Any], *, at_seconds: int) -> None:
    path.write_text(json.dumps(keys))
    os.utime(path, (at_seconds, at_seconds))


@pytest.fixture
def verifier(tmp_path: Path) -> JwtVerifier:
    write_keys(tmp_path / "jwks.json", ALL_KEYS, at_seconds=1)
    return verifier_of(tmp_path / "jwks.json")


@pytest.mark.parametrize("good", ACCEPTED.values(), ids=ACCEPTED)
async def test_a_good_token_is_its_callers(verifier: JwtVerifier, good: Callable[[Signer], str]) -> None:
    caller = await verifier.verify(good(SIGNER), None)
    assert ("alice", {"read:orders", "write:orders"}) == (caller.subject, caller.scopes)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("", {""}), (..., {""}), ("write:orders", {"write:orders"}), ([], set()), ("WRITE:ORDERS", {"WRITE:ORDERS"})],
)
async def test_a_caller_has_the_scopes_of_the_token_and_no_others(
    verifier: JwtVerifier, scope: Any, expected: set[str]
) -> None:
    assert expected == set((await verifier.verify(token(scope=scope), None)).scopes)


@pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED)
async def test_any_other_token_is_refused_and_no_fault(verifier: JwtVerifier, bad: Callable[[Signer], str]) -> None:
    assert await cause_of(verifier, bad(SIGNER)) is not None


@pytest.mark.parametrize("says", ["1 MB", "kid of 64 KB", "body nested deeply", "header nested deeply", "dots"])
async def test_a_token_that_is_made_to_cost_time_costs_little(verifier: JwtVerifier, says: str) -> None:
    """Of this thread's own: what else the machine does costs nothing here."""
    bad, durations = REFUSED[says](SIGNER), []
    for _ in range(3):
        started = time.thread_time()
        await cause_of(verifier, bad)
        durations.append(time.thread_time() - started)
    assert min(durations) < 0.05


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
    another = jwt.algorithms.ECAlgorithm.to_jwk(SIGNER.stranger.public_key(), as_dict=True)
    write_keys(path, {"keys": [another | {"kid": "key-ES256", "use": "sig", "alg": "ES256"}]}, at_seconds=2)
    assert await cause_of(verifier, held) is not None
    assert await cause_of(verifier, token("ES256", by=SIGNER.stranger)) is None


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
        jwk_of("ES256", use=None),
        jwk_of("ES256", key_ops=["sign"]),
        jwk_of("ES256", key_ops=7),
        jwk_of("ES256", alg="ES384"),
        jwk_of("ES256", alg=["ES256"]),
        jwk_of("ES256", alg="HS256", kty="oct", k=encoded(b"k" * 32)),
        jwk_of("ES256", kty=["EC"]),
        jwk_of("ES256", crv="P-384"),
        jwk_of("ES256", crv=...),
        jwk_of("ES256", x="AA"),
        jwk_of("ES256", y=jwk_of("ES256")["x"]),
        jwk_of("ES256", kid=...),
        jwk_of("ES256", kid=["key-ES256"]),
        jwk_of("RS256", kid="key-ES256"),
        jwk_of("EdDSA", kid="key-ES256", crv="X25519"),
        "key-ES256",
        None,
    ],
    ids=ascii,
)
async def test_a_key_that_is_not_for_this_is_not_used(tmp_path: Path, key: Any) -> None:
    write_keys(tmp_path / "jwks.json", {"keys": [key, jwk_of("RS256")]}, at_seconds=1)
    verifier = verifier_of(tmp_path / "jwks.json")
    symmetric = jwt.encode(SIGNER.claims(), b"k" * 32, "HS256", headers={"kid": "key-ES256"})
    assert [True, True] == [await cause_of(verifier, text) is not None for text in (token("ES256"), symmetric)]
    assert await cause_of(verifier, token("RS256")) is None


@pytest.mark.parametrize("algorithm", SIGNER.keys)
async def test_a_key_that_names_no_algorithm_has_that_of_its_kind(tmp_path: Path, algorithm: str) -> None:
    key = jwk_of(algorithm, alg=..., use=..., key_ops=["verify"])
    write_keys(tmp_path / "jwks.json", {"keys": [key]}, at_seconds=1)
    assert await cause_of(verifier_of(tmp_path / "jwks.json"), token(algorithm)) is None


async def test_an_rsa_key_that_could_be_broken_is_not_used(tmp_path: Path) -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - that is the point
    write_keys(tmp_path / "jwks.json", {"keys": [jwk("RS256", short), jwk_of("ES256")]}, at_seconds=1)
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        signed = token("RS256", by=short)
    assert "issuer has no such key" == await cause_of(verifier_of(tmp_path / "jwks.json"), signed)


async def test_two_keys_of_one_name_are_told_apart_by_their_algorithm(tmp_path: Path) -> None:
    write_keys(tmp_path / "jwks.json", {"keys": [jwk_of(each, kid="one") for each in SIGNER.keys]}, at_seconds=1)
    verifier = verifier_of(tmp_path / "jwks.json")
    for algorithm in SIGNER.keys:
        assert await cause_of(verifier, token(algorithm, header={"kid": "one"})) is None


# What is configured


async def test_other_types_are_accepted_when_that_is_said(tmp_path: Path) -> None:
    write_keys(tmp_path / "jwks.json", ALL_KEYS, at_seconds=1)
    rules = TokenRules(audience="payorder", types=frozenset({"at+jwt", "jwt"}), lifetime_seconds_max=DAY)
    verifier = JwtVerifier({ISSUER: FileKeySet(tmp_path / "jwks.json")}, rules)
    accepted = [{"typ": "JWT"}, {"typ": "jwt"}, {"typ": "at+jwt"}, {"typ": ...}]
    refused = [{"typ": "id_token"}, {"typ": "refresh+jwt"}, {"typ": "at+jwt2"}]
    assert [None] * 4 == [await cause_of(verifier, token(header=header)) for header in accepted]
    assert ["type not accepted"] * 3 == [await cause_of(verifier, token(header=header)) for header in refused]


async def test_a_token_that_is_bound_to_a_certificate_is_good_with_no_other(verifier: JwtVerifier) -> None:
    mine, another = encoded(b"m" * 32), encoded(b"a" * 32)
    bound = token(cnf={"x5t#S256": mine})
    shown = [None, another, mine, another, None, "", mine]
    causes = [await cause_of(verifier, bound, certificate) for certificate in shown]
    assert [cause is None for cause in causes] == [certificate == mine for certificate in shown]
    assert [None, None] == [await cause_of(verifier, token(), certificate) for certificate in (None, mine)]


async def test_a_disabled_subject_is_known_as_soon_as_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "disabled"
    path.write_text("alice\n\nbob \r\nhttps://issuer.example#carol")
    disabled = DisabledSubjects(path)
    assert [True, True, True, False] == [
        each in disabled for each in ("alice", "bob", "https://issuer.example#carol", "carol")
    ]
    path.write_text("carol\n")
    assert [False, True] == [each in disabled for each in ("alice", "carol")]
    path.write_bytes(b"\xff\n")
    assert [False, True] == [each in disabled for each in ("alice", "carol")]
    path.unlink()
    assert [False, True] == [each in disabled for each in ("alice", "carol")]


def test_the_development_key_is_nobody_elses_to_read(tmp_path: Path) -> None:
    Issuer(tmp_path / "issuer")
    assert 0o600 == (tmp_path / "issuer" / "key.pem").stat().st_mode & 0o777
    key_set = json.loads((tmp_path / "issuer" / "jwks.json").read_text())
    assert [{"alg", "crv", "kid", "kty", "use", "x", "y"}] * 2 == [set(key) for key in key_set["keys"]]
    private = serialization.load_pem_private_key((tmp_path / "issuer" / "key.pem").read_bytes(), password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
