"""Who waits for a payment hears of it: a receiver, `payorder listen`, a stream through Envoy, and deliveries say so."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from payorder.cli.listen import is_this_machine
from payorder.config import DEVELOPMENT_ISSUER
from payorder.local.envoy import Tls
from support.certificates import Authority
from support.doors import Answer
from support.listening import listening
from support.requests import ORDER, payment, some_id
from support.service import until
from support.stack import Stack, envoy_settings, started_envoy
from support.webhooks import Received, Receiver, is_signed_with, receiving

SCOPE = "read:orders write:orders webhooks"
# Where the engine does not matter.
ON_SQLITE = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
TOLD = ["payment.succeeded", "order.statusChanged"]


async def good(stack: Stack, rpc: str, token: str, **request: Any) -> dict[str, Any]:
    answer = await stack.grpc.call(rpc, request, token=token)
    assert "OK" == answer.code, answer
    return answer.body


async def paid_order(stack: Stack, token: str) -> str:
    order = str((await good(stack, "CreateOrder", token, **ORDER))["id"])
    await pay(stack, token, order)
    return order


async def pay(stack: Stack, token: str, order: str) -> None:
    assert "succeeded" == (await good(stack, "PayOrder", token, orderId=order, payment=payment()))["status"]


async def test_a_payment_shows_up_wherever_somebody_waits_for_it(stack: Stack) -> None:
    token = stack.token(f"everywhere {some_id()}", SCOPE)
    order = str((await good(stack, "CreateOrder", token, **ORDER))["id"])
    async with (
        receiving() as receiver,
        listening(stack.grpc_address, token) as listener,
        stack.rest.watch(order, token=token) as events,
    ):
        endpoint = await good(stack, "CreateWebhookEndpoint", token, url=receiver.url)
        await pay(stack, token, order)

        received = await next_of(receiver, 2)
        assert all(is_signed_with(each, endpoint["secret"]) for each in received)
        bodies = [each.json for each in received]
        by_sequence = sorted(bodies, key=lambda body: body["sequence"])
        assert TOLD == [body["eventType"] for body in by_sequence]

        streamed = [await anext(events), await anext(events)]
        assert [(body["sequence"], body["eventId"]) for body in by_sequence] == [
            (event["sequence"], event["eventId"]) for event in streamed
        ]

        assert {("verified", order, body["eventType"], body["timestamp"]) for body in bodies} == {
            tuple(reversed(line.split("  "))) for line in await listener.lines(2)
        }

        deliveries = await until(lambda: deliveries_of(stack, token, endpoint["id"]), all_delivered)
        assert {(body["eventId"], "delivered") for body in bodies} == {
            (delivery["eventId"], delivery["status"]) for delivery in deliveries.body["data"]
        }


async def next_of(receiver: Receiver, count: int) -> list[Received]:
    """What it was sent, which is so much and no more."""

    async def received() -> list[Received]:
        return receiver.received

    found = await until(received, lambda found: len(found) >= count)
    assert count == len(found)
    return found


async def deliveries_of(stack: Stack, token: str, endpoint: str) -> Answer:
    return await stack.rest.call("ListDeliveries", {"endpointId": endpoint}, token=token)


def all_delivered(answer: Answer) -> bool:
    return ["delivered"] * 2 == [delivery["status"] for delivery in answer.body["data"]]


@ON_SQLITE
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
async def test_a_listener_takes_its_endpoint_away_when_it_ends(stack: Stack, by: signal.Signals) -> None:
    token = stack.token(f"leaving {some_id()}", SCOPE)
    async with listening(stack.grpc_address, token) as listener:
        listed = await good(stack, "ListWebhookEndpoints", token)
        assert [listener.endpoint_id] == [endpoint["id"] for endpoint in listed["data"]]
        assert (0, "") == await listener.end(by)
    assert [] == (await good(stack, "ListWebhookEndpoints", token))["data"]


@ON_SQLITE
async def test_a_listener_hears_of_the_types_it_has_asked_for_and_hands_them_on_as_they_came(stack: Stack) -> None:
    token = stack.token(f"forwarding {some_id()}", SCOPE)
    async with (
        receiving() as behind,
        listening(stack.grpc_address, token, "--events", "payment.succeeded", "--forward-to", behind.url) as listener,
    ):
        order = await paid_order(stack, token)
        (line,) = await listener.lines(1)
        assert ["payment.succeeded", order, "verified", "-> 200"] == line.split("  ")[1:]
        (forwarded,) = await next_of(behind, 1)
        names = {name.lower() for name in forwarded.headers}
        assert {"webhook-id", "webhook-timestamp", "webhook-signature", "x-webhook-signature"} <= names
        assert "application/json" == forwarded.headers["Content-Type"]
        assert order == forwarded.json["data"]["order"]["id"]


@ON_SQLITE
async def test_a_listener_prints_what_a_program_can_read(stack: Stack) -> None:
    token = stack.token(f"piped {some_id()}", SCOPE)
    async with receiving() as receiver, listening(stack.grpc_address, token, "--print-json") as listener:
        await good(stack, "CreateWebhookEndpoint", token, url=receiver.url)
        await paid_order(stack, token)
        sent = [each.json for each in await next_of(receiver, 2)]
        printed = [json.loads(line) for line in await listener.lines(2)]
        assert sorted(sent, key=str) == sorted(printed, key=str)
        assert (0, "") == await listener.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def tls_address(stack: Stack, authority: Authority, tmp_path: Path) -> AsyncIterator[str]:
    """Where Envoy speaks TLS in front of the service, with a certificate of `authority`."""
    shown = authority.certificate("envoy")
    issuers = {DEVELOPMENT_ISSUER: str(stack.issuer.jwks_path.resolve())}
    settings = envoy_settings(stack.grpc_address, tmp_path, issuers, tls=Tls(shown.chain, shown.key, None))
    address = f"{settings.listen_address}:{settings.listen_port}"
    async with started_envoy(settings, tmp_path, lambda: takes_connections(address)):
        yield address


async def takes_connections(address: str) -> bool:
    host, port = address.split(":")
    with suppress(OSError):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
        return True
    return False


@ON_SQLITE
@pytest.mark.parametrize("trusts", ["a file", "the system"])
async def test_a_listener_speaks_tls_with_whom_it_trusts(
    stack: Stack, authority: Authority, tls_address: str, trusts: str
) -> None:
    token = stack.token(f"secret {some_id()}", SCOPE)
    by_file, system = (("--ca-file", str(authority.path)), {}), (("--tls",), {"SSL_CERT_FILE": str(authority.path)})
    options, environment = by_file if trusts == "a file" else system
    async with listening(tls_address, token, *options, **environment) as listener:
        order = await paid_order(stack, token)
        assert {order} == {line.split("  ")[2] for line in await listener.lines(2)}


@ON_SQLITE
async def test_a_listener_tells_its_token_to_nobody_whom_it_does_not_trust(stack: Stack, tls_address: str) -> None:
    with pytest.raises(AssertionError, match=r"says UNAVAILABLE.*CERTIFICATE_VERIFY_FAILED"):
        async with listening(tls_address, stack.token(scope=SCOPE), "--tls"):
            pass


@ON_SQLITE
async def test_a_listener_sends_its_token_in_clear_to_this_machine_alone_if_it_is_not_told_otherwise(
    stack: Stack,
) -> None:
    token = stack.token(f"in clear {some_id()}", SCOPE)
    # That is this machine, but not by a name that says so.
    address = stack.grpc_address.replace("127.0.0.1", "0.0.0.0")  # noqa: S104 - nothing is bound to it
    with pytest.raises(AssertionError, match=f"{address} is another machine: --tls hides the token"):
        async with listening(address, token):
            pass
    async with listening(address, token, "--token-in-clear") as listener:
        assert listener.endpoint_id


@ON_SQLITE
async def test_what_is_in_clear_no_proxy_is_asked_to_hand_on(stack: Stack) -> None:
    proxies = {"grpc_proxy": "http://127.0.0.1:1", "no_grpc_proxy": "", "no_proxy": ""}
    token = stack.token(f"past proxies {some_id()}", SCOPE)
    async with listening(stack.grpc_address, token, **proxies) as listener:
        assert listener.endpoint_id


@pytest.mark.parametrize(
    ("address", "is_here"),
    [
        ("127.0.0.1:50051", True),
        ("127.9.9.9:50051", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("192.0.2.1:50051", False),
        ("[2001:db8::1]:50051", False),
        # gRPC takes these for an address without a port, and for names that are to be asked for.
        ("::1:50051", False),
        ("localhost.example.com:50051", False),
        ("dns:///127.0.0.1:50051", False),
        ("[::1:50051", False),
        ("", False),
    ],
)
def test_only_an_address_that_says_so_is_this_machine(address: str, is_here: bool) -> None:
    assert is_here == is_this_machine(address)


@ON_SQLITE
async def test_what_nobody_has_signed_is_not_shown(stack: Stack) -> None:
    token = stack.token(f"forged {some_id()}", SCOPE)
    async with listening(stack.grpc_address, token) as listener:
        url = listener.first_line.split(" ")[2]
        forged = json.dumps({"eventType": "payment.succeeded", "timestamp": "now", "data": {}}).encode()
        headers = {"webhook-id": some_id(), "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,AAAA"}
        answer = await stack.rest.send("POST", url, data=forged, headers=headers)
        assert 400 == answer.http
        assert ["NOT VERIFIED"] == await listener.lines(1)


@ON_SQLITE
@pytest.mark.parametrize(
    ("scope", "said"), [("read:orders", "PERMISSION_DENIED"), (None, "UNAUTHENTICATED")], ids=["no scope", "no token"]
)
async def test_who_may_not_listen_is_told_why(stack: Stack, scope: str | None, said: str) -> None:
    with pytest.raises(AssertionError, match=f"payorder: {stack.grpc_address} says {said}"):
        async with listening(stack.grpc_address, stack.token(scope=scope) if scope else "none"):
            pass
