"""Webhook endpoints where the settings matter: how many, sealed with which keys, and which networks are open."""

import asyncio
import base64
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from conftest import ENGINES, NewMigrated
from payorder.adapters.database.engine import Database
from payorder.adapters.database.tables import webhook_endpoints
from payorder.adapters.sealing import FernetBox
from payorder.app import telling
from payorder.config import Settings
from payorder.domain.secret import Secret
from payorder.ports.receivers import UrlRefused
from service.conftest import Serve
from support.doors import Answer, Body, to_message
from support.requests import CALLBACK, ENDPOINT, payment
from support.service import Service, serving, until
from support.webhooks import is_signed_with, receiving

USER = "read:orders write:orders webhooks"
SERVICE = f"{USER} act:any-owner"
OLD, NEW = (base64.urlsafe_b64encode(key * 32).decode() for key in (b"o", b"n"))


async def create(service: Service, scope: str = "webhooks", **fields: Any) -> Answer:
    return await service.grpc.call("CreateWebhookEndpoint", ENDPOINT | fields, token=service.token(scope=scope))


async def test_nobody_has_more_endpoints_than_the_setting_says(serve: Serve) -> None:
    async with serve(webhook_endpoints_max=3) as service:
        answers = await asyncio.gather(*(create(service) for _ in range(8)))
        assert {None: 3, "WEBHOOK_LIMIT_REACHED": 5} == Counter(answer.reason for answer in answers)
        made = next(answer.body["id"] for answer in answers if answer.reason is None)
        token = service.token(scope="webhooks")
        await service.grpc.call("DeleteWebhookEndpoint", {"endpointId": made}, token=token)
        assert ["OK", "FAILED_PRECONDITION"] == [(await create(service)).code, (await create(service)).code]


async def test_a_network_inside_is_closed_until_an_operator_opens_it(serve: Serve) -> None:
    async with serve(webhook_networks_allowed="") as service:
        for url in ("http://127.0.0.1:9/", "http://127.0.0.2/", "http://10.1.2.3/"):
            assert {"url": "url_refused"} == (await create(service, url=url)).faults
    async with serve(webhook_networks_allowed="10.1.0.0/16 127.0.0.1/32") as service:
        opened = [(await create(service, url=f"http://{host}/")).code for host in ("10.1.2.3", "127.0.0.1")]
        closed = [(await create(service, url=f"http://{host}/")).code for host in ("10.2.2.3", "127.0.0.2")]
        assert ["OK"] * 2 + ["INVALID_ARGUMENT"] * 2 == opened + closed


async def test_networks_inside_are_open_to_services_alone_unless_an_operator_says_otherwise(serve: Serve) -> None:
    urls = ("http://127.0.0.1:9/", "http://[::1]:9/", "http://localhost:9/")
    opened = {"webhook_networks_allowed": "127.0.0.0/8 ::1/128"}
    async with serve(**opened, webhook_networks_allowed_to="services") as service:
        assert {"INVALID_ARGUMENT"} == {code for url in urls for code in await ask_to_send(service, url, USER)}
        assert {"OK"} == {code for url in urls for code in await ask_to_send(service, url, SERVICE)}
    async with serve(**opened, webhook_networks_allowed_to="everybody") as service:
        assert {"OK"} == {code for url in urls for code in await ask_to_send(service, url, USER)}


async def ask_to_send(service: Service, url: str, scope: str) -> list[str]:
    """In every way that there is."""
    endpoint = (await create(service, scope, url="http://1.1.1.1/")).body["id"]
    requests = {
        "CreateWebhookEndpoint": ENDPOINT | {"url": url},
        "UpdateWebhookEndpoint": {"endpointId": endpoint, "url": url},
        "RequestCallback": CALLBACK | {"orderId": await service.new_order(), "callbackUrl": url},
    }
    token = service.token(scope=scope)
    return [(await service.grpc.call(rpc, request, token=token)).code for rpc, request in requests.items()]


async def test_what_happens_where_nothing_is_sent_is_sent_by_another_replica(serve: Serve) -> None:
    async with receiving() as receiver, serve(webhook_sends_here=False) as answers:
        endpoint = (await create(answers, url=receiver.url, eventTypes=["payment.succeeded"])).body["id"]
        paying = {"orderId": await answers.new_order(), "payment": payment()}
        assert "OK" == (await answers.grpc.call("PayOrder", paying, token=answers.token())).code
        # Longer than a poll.
        await asyncio.sleep(1.5)
        assert [] == receiver.received
        async with serve():
            assert await was_delivered(answers, endpoint)


async def test_what_is_sent_inside_is_sent_to_urls_of_services_alone(serve: Serve) -> None:
    """Also when it was open to everybody before, and whoever the endpoint belongs to."""
    async with receiving() as receiver:
        async with serve(webhook_networks_allowed_to="everybody") as service:
            order = await service.new_order()
            of_user = await hear(service, order, f"{receiver.url}/user", USER)
            of_service = await hear(service, order, f"{receiver.url}/service", SERVICE)
        async with serve(webhook_networks_allowed_to="services") as service:
            paying = {"orderId": order, "payment": payment()}
            assert "OK" == (await service.grpc.call("PayOrder", paying, token=service.token())).code
            assert [True] * 3 == [await was_delivered(service, endpoint) for endpoint in of_service]
            assert [False] * 3 == [await was_delivered(service, endpoint) for endpoint in of_user]
        assert ["/service"] * 3 == [received.path for received in receiver.received]


async def hear(service: Service, order: str, url: str, scope: str) -> list[str]:
    """An endpoint there, one that was elsewhere, given by somebody else, and a callback."""
    token, types = service.token(scope=scope), ["payment.succeeded"]
    made = await create(service, scope, url=url, eventTypes=types)
    moved = await create(service, USER if scope == SERVICE else SERVICE, eventTypes=types)
    await service.grpc.call("UpdateWebhookEndpoint", {"endpointId": moved.body["id"], "url": url}, token=token)
    await service.grpc.call("RequestCallback", CALLBACK | {"orderId": order, "callbackUrl": url}, token=token)
    callbacks = await service.grpc.call("ListWebhookEndpoints", {"orderId": order}, token=token)
    return [made.body["id"], moved.body["id"], callbacks.body["data"][0]["id"]]


async def was_delivered(service: Service, endpoint_id: str) -> bool:
    """Its one delivery, at the first attempt."""
    token = service.token(scope=USER)
    listed = await until(
        lambda: service.grpc.call("ListDeliveries", {"endpointId": endpoint_id}, token=token),
        lambda answer: bool(answer.body["data"] and answer.body["data"][0]["attempts"]),
    )
    return bool(listed.body["data"][0]["attempts"][0]["delivered"])


async def test_in_production_nothing_is_sent_without_tls() -> None:
    receivers = telling.receivers(
        Settings(
            issuer="https://issuer.example",
            processor="sandbox",
            fingerprint_key=SecretStr("f" * 32),
            webhook_secret_keys=SecretStr(OLD),
            webhook_networks_allowed="127.0.0.0/8",
            public_url="https://shop.example",
        )
    )
    await receivers.vet("https://127.0.0.1/", by_service=True)
    for url in ("http://127.0.0.1/", "http://127.0.0.1:443/"):
        with pytest.raises(UrlRefused):
            await receivers.vet(url, by_service=True)
    await receivers.close()


async def test_a_secret_is_stored_sealed_and_its_key_can_be_changed_over(
    tmp_path: Path, new_migrated: NewMigrated
) -> None:
    for engine in ENGINES:
        url = await new_migrated(engine, tmp_path)
        async with receiving() as receiver:
            async with serving(tmp_path, url, migrates=False, webhook_secret_keys=SecretStr(OLD)) as service:
                endpoint = (await create(service, url=receiver.url)).body
            sealed = await sealed_in(url)
            assert endpoint["secret"].encode() not in sealed
            assert base64.b64decode(endpoint["secret"].removeprefix("whsec_")) not in sealed
            assert endpoint["secret"] == FernetBox([Secret(OLD)]).open(sealed).reveal()

            both = SecretStr(f"{NEW} {OLD}")
            async with serving(tmp_path, url, migrates=False, webhook_secret_keys=both) as service:
                name = {"endpointId": endpoint["id"]}
                await deliver_test_event(service, name)
                rotated = await service.grpc.call("RotateSecret", name, token=service.token(scope="webhooks"))
            assert rotated.body["secret"] == FernetBox([Secret(NEW)]).open(await sealed_in(url)).reveal()
        assert [True] == [is_signed_with(received, endpoint["secret"]) for received in receiver.received]


async def deliver_test_event(service: Service, name: Body) -> None:
    """Sent, and delivered."""
    token = service.token(scope="webhooks")
    await service.grpc.call("SendTestEvent", name, token=token)
    listed = await until(
        lambda: service.grpc.call("ListDeliveries", name, token=token),
        lambda answer: "delivered" == answer.body["data"][0]["status"],
    )
    assert "delivered" == listed.body["data"][0]["status"]


async def sealed_in(url: str) -> bytes:
    """What is kept of the one secret there is."""
    database = Database(url, pool_size=1, pool_timeout_seconds=5)
    async with database.read() as connection:
        sealed = (await connection.execute(select(webhook_endpoints.c.secret))).scalar_one()
    await database.close()
    return bytes(sealed)


async def test_a_callback_is_answered_again_under_its_key_when_by_now_nothing_may_be_sent_there(serve: Serve) -> None:
    async def ask(service: Service, order_id: str, key: str) -> str:
        request = to_message("RequestCallback", CALLBACK | {"orderId": order_id}).SerializeToString()
        metadata = (*service.metadata, ("idempotency-key", key))
        return await service.code_of("/payments.v1.OrderService/RequestCallback", request, metadata=metadata)

    async with serve() as service:
        order_id = await service.new_order()
        assert "OK" == await ask(service, order_id, "one")
    async with serve(webhook_networks_allowed="") as service:
        assert ["OK", "INVALID_ARGUMENT"] == [await ask(service, order_id, key) for key in ("one", "another")]


async def test_test_events_are_limited(serve: Serve) -> None:
    async with serve() as service:
        name, token = {"endpointId": (await create(service)).body["id"]}, service.token(scope="webhooks")
        answers = [await service.grpc.call("SendTestEvent", name, token=token) for _ in range(21)]
        assert ["OK"] * 20 + ["RESOURCE_EXHAUSTED"] == [answer.code for answer in answers]
        assert "RATE_LIMITED" == answers[-1].reason
        listed = await service.grpc.call("ListDeliveries", name | {"pageSize": 100}, token=token)
        assert 20 == len(listed.body["data"])
