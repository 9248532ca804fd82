"""One table of tokens at every door: what Envoy lets through the service still judges, and both say the same.

Two HTTP issuers, found by discovery; the service runs in this process, so that a test can hurry its questions.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from payments.v1.order_service_pb2 import CreateOrderRequest
from payorder.adapters.tokens import remote
from payorder.config import Environment
from support.doors import Answer, GrpcDoor, RestDoor, answer_of, to_message
from support.forged_tokens import ACCEPTED, AUTHORIZATIONS, REFUSED
from support.issuers import JWKS, HttpIssuer, encoded, jwk, new_key, new_keys, running_issuer
from support.requests import ORDER, payment
from support.service import serving, until
from support.signing_keys import new_signing_key
from support.snapshot import Watch
from support.stack import free_port, running_envoy

KEYS, OTHER_KEYS = new_keys(), new_keys()
UNAUTHENTICATED = ("UNAUTHENTICATED", 401, "UNAUTHENTICATED")
# A header longer than this may be refused before anybody reads it: 431, and gRPC's own RESOURCE_EXHAUSTED.
HEADER_LENGTH_MAX = 8000


@dataclass(frozen=True, slots=True)
class Doors:
    rest: RestDoor
    grpc: GrpcDoor
    grpc_through_envoy: GrpcDoor
    database_url: str

    async def ask(self, token: str) -> list[Answer]:
        """The same call through each: REST, native through Envoy, native."""
        doors = (self.rest, self.grpc_through_envoy, self.grpc)
        return [await door.call("CreateOrder", ORDER, token=token) for door in doors]

    async def codes(self, token: str) -> list[str]:
        return [answer.code for answer in await self.ask(token)]


@asynccontextmanager
async def opened(folder: Path, issuers: Mapping[str, str], **settings: Any) -> AsyncIterator[Doors]:
    """A service that finds `issuers` by discovery, and an Envoy that reads their keys every second."""
    url = f"sqlite:///{folder / 'payorder.db'}"
    async with (
        serving(folder, url, issuer=" ".join(issuers), jwks=None, **settings) as service,
        running_envoy(service.address, folder, issuers=issuers, jwks_cache_seconds=1) as (rest, through_envoy),
    ):
        yield Doors(rest, service.grpc, through_envoy, url)


@pytest.fixture(scope="module")
async def issuer() -> AsyncIterator[HttpIssuer]:
    async with running_issuer(KEYS) as running:
        yield running


@pytest.fixture(scope="module")
async def other() -> AsyncIterator[HttpIssuer]:
    async with running_issuer(OTHER_KEYS) as running:
        yield running


@pytest.fixture(scope="module")
async def disabled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("disabled") / "subjects"
    path.touch()
    return path


@pytest.fixture(scope="module")
async def doors(
    tmp_path_factory: pytest.TempPathFactory, issuer: HttpIssuer, other: HttpIssuer, disabled: Path
) -> AsyncIterator[Doors]:
    issuers = {each.issuer: each.issuer + JWKS for each in (issuer, other)}
    async with opened(tmp_path_factory.mktemp("doors"), issuers, disabled_subjects=disabled) as running:
        yield running


def is_sendable(token: str) -> bool:
    return token.isascii() and token.isprintable()


async def test_what_is_accepted_is_accepted_at_every_door(doors: Doors, issuer: HttpIssuer) -> None:
    for says, good in ACCEPTED.items():
        assert ["OK"] * 3 == await doors.codes(good(issuer)), says


async def test_whatever_is_wrong_with_a_token_the_answer_is_the_same_and_nothing_happens(
    doors: Doors, issuer: HttpIssuer, unused_address: "Listener"
) -> None:
    issuer.foreign_url = unused_address.url
    watch, problems = Watch(doors), set()
    await watch.changes()
    for says, bad in REFUSED.items():
        token = bad(issuer)
        if is_sendable(token) and len(token) < HEADER_LENGTH_MAX:
            rest, through_envoy, direct = await doors.ask(token)
            for answer in (rest, through_envoy, direct):
                assert UNAUTHENTICATED == (answer.code, answer.http, answer.reason), says
            assert ("application/problem+json", "Bearer") == (
                rest.headers["content-type"],
                rest.headers["www-authenticate"],
            )
            problems |= {
                json.dumps(answer.without_instance(), sort_keys=True) for answer in (rest, through_envoy, direct)
            }
    assert (1, ([], []), 0) == (len(problems), await watch.changes(), unused_address.connections)


async def test_a_token_that_is_too_long_is_refused_and_nothing_happens(doors: Doors, issuer: HttpIssuer) -> None:
    watch = Watch(doors)
    await watch.changes()
    for says, bad in REFUSED.items():
        token = bad(issuer)
        if is_sendable(token) and len(token) >= HEADER_LENGTH_MAX:
            rest = await doors.rest.call("CreateOrder", ORDER, token=token)
            direct = await doors.grpc.call("CreateOrder", ORDER, token=token)
            assert (rest.http, rest.reason) in ((401, "UNAUTHENTICATED"), (431, "REQUEST_TOO_LARGE")), says
            assert direct.code in ("UNAUTHENTICATED", "RESOURCE_EXHAUSTED"), says
    assert ([], []) == await watch.changes()
    assert ["OK"] * 3 == await doors.codes(issuer.token())


class Listener:
    """Counts who comes."""

    def __init__(self) -> None:
        self.connections = 0
        self.url = ""

    def come(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()


@pytest.fixture
async def unused_address() -> AsyncIterator[Listener]:
    listener = Listener()
    async with await asyncio.start_server(listener.come, "127.0.0.1", 0) as server:
        listener.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
        yield listener


@pytest.mark.parametrize("values", AUTHORIZATIONS.values(), ids=AUTHORIZATIONS)
async def test_one_bearer_token_is_wanted_and_nothing_else(
    doors: Doors, issuer: HttpIssuer, values: tuple[str, ...]
) -> None:
    sent = [value.format(token=issuer.token()) for value in values]
    lines = "".join(f"authorization: {value}\r\n" for value in sent)
    rest = await doors.rest.send_raw(f"GET /orders HTTP/1.1\r\nhost: payorder\r\n{lines}\r\n".encode())
    assert UNAUTHENTICATED == (rest.code, rest.http, rest.reason)
    natives = [await with_metadata(door, sent) for door in (doors.grpc, doors.grpc_through_envoy)]
    assert [UNAUTHENTICATED] * 2 == [(answer.code, answer.http, answer.reason) for answer in natives]
    assert [rest.without_instance()] * 2 == [answer.without_instance() for answer in natives]


async def test_an_empty_authorization_besides_a_good_one_is_two_to_the_service_and_none_to_envoy(
    doors: Doors, issuer: HttpIssuer
) -> None:
    values = ["", f"Bearer {issuer.token()}"]
    answers = [await with_metadata(door, values) for door in (doors.grpc, doors.grpc_through_envoy)]
    assert ["UNAUTHENTICATED", "OK"] == [answer.code for answer in answers]


async def test_the_scheme_is_read_in_any_case(doors: Doors, issuer: HttpIssuer) -> None:
    for scheme in ("Bearer", "bearer", "BEARER", "bEaReR"):
        value = f"{scheme} {issuer.token()}"
        natives = [await with_metadata(door, [value]) for door in (doors.grpc, doors.grpc_through_envoy)]
        rest = await doors.rest.send("GET", "/orders", headers={"authorization": value})
        assert ["OK", "OK", "OK"] == [answer.code for answer in (*natives, rest)]


async def test_a_certificate_is_not_believed_unless_that_is_configured(doors: Doors, issuer: HttpIssuer) -> None:
    shown = hashlib.sha256(b"certificate")
    bound = issuer.token(cnf={"x5t#S256": encoded(shown.digest())})
    claimed = [("x-forwarded-client-cert", f"Hash={shown.hexdigest()}")]
    answers = [
        await with_metadata(door, [f"Bearer {bound}"], claimed) for door in (doors.grpc, doors.grpc_through_envoy)
    ]
    assert ["UNAUTHENTICATED", "UNAUTHENTICATED"] == [answer.code for answer in answers]


async def with_metadata(door: GrpcDoor, values: list[str], further: list[tuple[str, str]] | None = None) -> Answer:
    method = door.channel.unary_unary(
        "/payments.v1.OrderService/CreateOrder", request_serializer=CreateOrderRequest.SerializeToString
    )
    try:
        await method(
            to_message("CreateOrder", ORDER),
            metadata=[("authorization", value) for value in values] + (further or []),
            timeout=10,
        )
    except grpc.aio.AioRpcError as error:
        return answer_of(error)
    return Answer("OK", None, {})


# Whom a token stands for


async def test_a_token_without_the_scope_is_good_but_not_enough(doors: Doors, issuer: HttpIssuer) -> None:
    answers = await doors.ask(issuer.token(scope="read:orders"))
    assert [("PERMISSION_DENIED", 403, "SCOPE_MISSING")] * 3 == [
        (each.code, each.http, each.reason) for each in answers
    ]


async def test_a_claim_that_looks_like_power_gives_none(doors: Doors, issuer: HttpIssuer) -> None:
    """B2: scopes alone count."""
    theirs = await doors.rest.call("CreateOrder", ORDER, token=issuer.token(sub="bob"))
    order = theirs.body["id"]
    powers: dict[str, Any] = {"admin": True, "roles": ["admin"], "act": {"sub": "bob"}, "tenant": "bob"}
    token = issuer.token(sub="mallory", permissions=["admin", "act:any-owner"], **powers)
    for door in (doors.rest, doors.grpc, doors.grpc_through_envoy):
        paid = await door.call("PayOrder", {"orderId": order, "payment": payment()}, token=token)
        assert ("NOT_FOUND", 404, "ORDER_NOT_FOUND") == (paid.code, paid.http, paid.reason)
        cancelled = await door.call("ForceCancelOrder", {"orderId": order, "reason": "because"}, token=token)
        assert ("PERMISSION_DENIED", 403, "SCOPE_MISSING") == (cancelled.code, cancelled.http, cancelled.reason)
    read = await doors.grpc.call("GetOrder", {"orderId": order}, token=issuer.token(sub="bob"))
    assert ("placed", None) == (read.body["status"], read.body.get("latestPaymentId"))


async def test_a_disabled_subject_is_refused_while_its_token_is_good(
    doors: Doors, issuer: HttpIssuer, disabled: Path
) -> None:
    tokens = [issuer.token(sub=subject) for subject in ("alice", "mallory")]
    await asyncio.to_thread(disabled.write_text, "mallory\n")
    try:
        alice, mallory = [await doors.ask(token) for token in tokens]
        assert ["OK"] * 3 == [answer.code for answer in alice]
        assert [("PERMISSION_DENIED", 403, "SUBJECT_DISABLED")] * 3 == [
            (answer.code, answer.http, answer.reason) for answer in mallory
        ]
    finally:
        await asyncio.to_thread(disabled.write_text, "")
    assert ["OK"] * 3 == await doors.codes(tokens[1])


async def test_orders_of_two_issuers_subjects_are_apart(doors: Doors, issuer: HttpIssuer, other: HttpIssuer) -> None:
    mine, others = [await doors.rest.call("CreateOrder", ORDER, token=each.token()) for each in (issuer, other)]
    assert ("alice", f"{other.issuer}#alice") == (mine.body["userId"], others.body["userId"])
    for door in (doors.rest, doors.grpc, doors.grpc_through_envoy):
        crossed = await door.call("GetOrder", {"orderId": mine.body["id"]}, token=other.token())
        assert ("NOT_FOUND", 404, "ORDER_NOT_FOUND") == (crossed.code, crossed.http, crossed.reason)


# What is configured


async def test_tokens_of_type_jwt_are_taken_where_that_is_said(tmp_path: Path, issuer: HttpIssuer) -> None:
    url = f"sqlite:///{tmp_path / 'payorder.db'}"
    async with serving(tmp_path, url, issuer=issuer.issuer, jwks=None, token_types="at+jwt JWT") as service:
        types = ("at+jwt", "JWT", ..., "id_token")
        answers = [
            await service.grpc.call("ListOrders", {}, token=issuer.token(header={"typ": each})) for each in types
        ]
    assert ["OK", "OK", "OK", "UNAUTHENTICATED"] == [answer.code for answer in answers]


async def test_a_token_of_the_development_issuer_is_refused_in_production(tmp_path: Path) -> None:
    """Even where its key has found its way into the key set."""
    production = {
        "env": Environment.PRODUCTION,
        "issuer": "https://issuer.example",
        "processor": "sandbox",
        "fingerprint_key": "f" * 32,
        "webhook_secret_keys": "k" * 43 + "=",
        "webhook_ports": "443",
        "public_url": "https://pay.example",
        "audit_signing_key": str(new_signing_key(tmp_path / "key.pem")),
        "receipt_signing_key": str(new_signing_key(tmp_path / "receipts.pem")),
    }
    async with serving(tmp_path, f"sqlite:///{tmp_path / 'payorder.db'}", **production) as service:
        answer = await service.grpc.call("ListOrders", {}, token=service.token())
    assert UNAUTHENTICATED == (answer.code, answer.http, answer.reason)


# Keys that change


async def test_a_rotated_key_is_taken_at_both_doors_without_a_restart(
    doors: Doors, other: HttpIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_ASK_UNKNOWN_SECONDS", 0.0)
    monkeypatch.setattr(remote, "_ASK_AGAIN_SECONDS", 0.1)
    old, new = other.token("ES256"), new_key("ES256")
    new_token = other.token(by=new, header={"kid": "key-new"})
    assert (["OK"] * 3, ["UNAUTHENTICATED"] * 3) == (await doors.codes(old), await doors.codes(new_token))
    other.answers[JWKS] = other.saying(jwk("ES256", OTHER_KEYS["ES256"]), jwk("ES256", new, kid="key-new"))
    good = ["OK"] * 3
    assert good == await until(lambda: doors.codes(new_token), lambda codes: codes == good)
    assert good == await doors.codes(old)
    other.answers[JWKS] = other.saying(jwk("ES256", new, kid="key-new"))
    bad = ["UNAUTHENTICATED"] * 3
    assert bad == await until(lambda: doors.codes(old), lambda codes: codes == bad)
    assert good == await doors.codes(new_token)
    del other.answers[JWKS]


async def test_service_and_envoy_start_while_an_issuer_is_away_and_take_its_tokens_when_it_is_back(
    tmp_path: Path, issuer: HttpIssuer, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    away = f"http://127.0.0.1:{port}"
    async with opened(tmp_path, {issuer.issuer: issuer.issuer + JWKS, away: away + JWKS}) as doors:
        assert ["OK"] * 3 == await doors.codes(issuer.token())
        assert ["UNAUTHENTICATED"] * 3 == await doors.codes(issuer.token(iss=away))
        told = [line for line in capsys.readouterr().out.splitlines() if "no keys" in line]
        assert told
        assert all(away in line and "ClientConnectorError" in line for line in told)
        async with running_issuer(OTHER_KEYS, port=port) as back:
            good = ["OK"] * 3
            assert good == await until(lambda: doors.codes(back.token()), lambda codes: codes == good)
