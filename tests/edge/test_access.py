"""Who may call what: every RPC by every identity, through every door."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from payorder.edge.methods import METHODS, PACKAGE_PREFIX
from support.doors import Answer, Body, Door
from support.orders import Orders
from support.requests import CALLBACK, DECLINED, ORDER, payment, some_id
from support.requests import ENDPOINT as A_URL
from support.stack import Stack

ROOT = Path(__file__).parents[2]
# There are many, and they stay: each that heard of payments would be sent all that later tests make.
ENDPOINT = A_URL | {"eventTypes": ["refund.failed"]}

OWN_ONLY = "read:orders write:orders webhooks"
# Subject and scopes: two users, two services, of which one may act for everybody, and an administrator.
IDENTITIES: Mapping[str, tuple[str, str]] = {
    "alice": ("alice", OWN_ONLY),
    "bob": ("bob", OWN_ONLY),
    "a service for anybody": ("shop", f"{OWN_ONLY} act:any-owner"),
    "a service for itself": ("reports", OWN_ONLY),
    "an administrator": ("root", "admin"),
}
OK, NOT_FOUND, DENIED = ("OK", None), ("NOT_FOUND", "ORDER_NOT_FOUND"), ("PERMISSION_DENIED", "SCOPE_MISSING")
NO_WEBHOOK = ("NOT_FOUND", "WEBHOOK_NOT_FOUND")
Expected = tuple[str, str | None]


def only(*allowed: str, others: Expected = DENIED) -> Mapping[str, Expected]:
    return {identity: OK if identity in allowed else others for identity in IDENTITIES}


# What is asked about an order of alice's.
OF_ALICE = only("alice", "a service for anybody", others=NOT_FOUND) | {"an administrator": DENIED}
OF_ONESELF = only("alice", "bob", "a service for anybody", "a service for itself")
# Of an endpoint that alice has created, whoever's orders a service may act for.
OF_ALICES_WEBHOOK = only("alice", others=NO_WEBHOOK) | {"an administrator": DENIED}
IN_THE_NAME_OF_ALICE = only("a service for anybody")
ADMINISTRATION = only("an administrator")


@dataclass(frozen=True, slots=True)
class Row:
    """An RPC by the door's name for it, about an order in `state`, and the answer that each identity gets."""

    says: str
    method: str
    answers: Mapping[str, Expected]
    state: str | None = None
    call: str | None = None
    request: Body = field(default_factory=dict)

    @property
    def rpc(self) -> str:
        return self.call or self.method.partition("/")[2]


# A new RPC needs a row: test_every_rpc_is_in_the_matrix.
MATRIX = (
    Row("CreateOrder", "OrderService/CreateOrder", OF_ONESELF, request=ORDER),
    Row(
        "CreateOrder for alice",
        "OrderService/CreateOrder",
        IN_THE_NAME_OF_ALICE,
        request=ORDER | {"userId": "alice"},
    ),
    Row("GetOrder", "OrderService/GetOrder", OF_ALICE, "placed"),
    Row("ListOrders", "OrderService/ListOrders", OF_ONESELF),
    Row("ListOrders of alice", "OrderService/ListOrders", IN_THE_NAME_OF_ALICE, request={"userId": "alice"}),
    Row("WatchOrder", "OrderService/WatchOrder", OF_ALICE, "paid"),
    Row("CancelOrder", "OrderService/CancelOrder", OF_ALICE, "placed"),
    Row("CancelOrder of a paid order", "OrderService/CancelOrder", OF_ALICE, "paid"),
    Row("PayOrder", "PaymentService/PayOrder", OF_ALICE, "placed", request={"payment": payment()}),
    Row("GetPayment by its id", "PaymentService/GetPayment", OF_ALICE, "paid", "GetPayment"),
    Row("GetPayment by its order", "PaymentService/GetPayment", OF_ALICE, "paid", "GetLatestPayment"),
    Row("ListPayments", "PaymentService/ListPayments", OF_ALICE, "paid"),
    Row("GetReceipt", "PaymentService/GetReceipt", OF_ALICE, "paid"),
    Row("RenderReceipt", "PaymentService/RenderReceipt", OF_ALICE, "paid", request={"format": "html"}),
    Row("GetReceiptKeys", "PaymentService/GetReceiptKeys", only(*IDENTITIES)),
    Row("RequestCallback", "OrderService/RequestCallback", OF_ALICE, "placed", request=CALLBACK),
    Row("CreateWebhookEndpoint", "WebhookService/CreateWebhookEndpoint", OF_ONESELF, request=ENDPOINT),
    Row(
        "CreateWebhookEndpoint of alice's orders",
        "WebhookService/CreateWebhookEndpoint",
        IN_THE_NAME_OF_ALICE,
        request=ENDPOINT | {"userId": "alice"},
    ),
    Row(
        "CreateWebhookEndpoint of everybody's orders",
        "WebhookService/CreateWebhookEndpoint",
        IN_THE_NAME_OF_ALICE,
        request=ENDPOINT | {"allUsers": True},
    ),
    Row("ListWebhookEndpoints", "WebhookService/ListWebhookEndpoints", OF_ONESELF),
    Row("GetWebhookEndpoint", "WebhookService/GetWebhookEndpoint", OF_ALICES_WEBHOOK, "webhook"),
    Row("UpdateWebhookEndpoint", "WebhookService/UpdateWebhookEndpoint", OF_ALICES_WEBHOOK, "webhook"),
    Row("DeleteWebhookEndpoint", "WebhookService/DeleteWebhookEndpoint", OF_ALICES_WEBHOOK, "webhook"),
    Row("RotateSecret", "WebhookService/RotateSecret", OF_ALICES_WEBHOOK, "webhook"),
    Row("SendTestEvent", "WebhookService/SendTestEvent", OF_ALICES_WEBHOOK, "webhook"),
    Row("ListDeliveries", "WebhookService/ListDeliveries", OF_ALICES_WEBHOOK, "webhook"),
    Row("ReplayDelivery", "WebhookService/ReplayDelivery", OF_ALICES_WEBHOOK, "delivery"),
    Row(
        "ReplayDeliveries",
        "WebhookService/ReplayDeliveries",
        OF_ALICES_WEBHOOK,
        "webhook",
        request={"since": "2026-01-01T00:00:00Z"},
    ),
    Row("ListOrders of everybody", "AdminService/ListOrders", ADMINISTRATION, call="ListAllOrders"),
    Row(
        "ForceCancelOrder",
        "AdminService/ForceCancelOrder",
        ADMINISTRATION,
        "placed",
        request={"reason": "it was asked"},
    ),
    Row("UpdateOrderStatus", "AdminService/UpdateOrderStatus", ADMINISTRATION, "paid", request={"status": "shipped"}),
    Row(
        "ListWebhookEndpoints of everybody",
        "AdminService/ListWebhookEndpoints",
        ADMINISTRATION,
        call="ListAllWebhookEndpoints",
    ),
    Row(
        "DisableWebhookEndpoint",
        "AdminService/DisableWebhookEndpoint",
        ADMINISTRATION,
        "webhook",
        request={"reason": "it was asked"},
    ),
    Row(
        "EnableWebhookEndpoint",
        "AdminService/EnableWebhookEndpoint",
        ADMINISTRATION,
        "webhook",
        request={"reason": "it was asked"},
    ),
    Row("GetDashboardStats", "AdminService/GetDashboardStats", ADMINISTRATION),
    Row("ListAuditLogs", "AdminService/ListAuditLogs", ADMINISTRATION),
    Row("GetAuditLog", "AdminService/GetAuditLog", ADMINISTRATION, "placed"),
)
CELLS = [pytest.param(row, identity, id=f"{row.says} by {identity}") for row in MATRIX for identity in IDENTITIES]


def token_of(stack: Stack, identity: str) -> str:
    subject, scope = IDENTITIES[identity]
    return stack.token(subject, scope)


def methods_of_the_contract() -> set[str]:
    files = FileDescriptorSet.FromString((ROOT / "generated" / "payments.binpb").read_bytes()).file
    ours = [file for file in files if file.package == "payments.v1"]
    return {f"{service.name}/{rpc.name}" for file in ours for service in file.service for rpc in service.method}


def test_every_rpc_is_in_the_matrix() -> None:
    assert methods_of_the_contract() == {row.method for row in MATRIX}


def test_every_rpc_needs_a_scope_but_the_one_that_publishes_keys() -> None:
    assert {PACKAGE_PREFIX + method for method in methods_of_the_contract()} == set(METHODS)
    assert ["PaymentService/GetReceiptKeys"] == [method.name for method in METHODS.values() if not method.scope]


async def test_without_a_token_there_are_keys_of_receipts_and_nothing_else(stack: Stack, orders: Orders) -> None:
    for door in (stack.rest, stack.grpc, stack.grpc_through_envoy):
        answers = {
            row.method: await door.call(row.rpc, await request_of(stack, orders, row), token=None) for row in MATRIX
        }
        answered = [method for method, answer in answers.items() if "UNAUTHENTICATED" != answer.code]
        assert ["PaymentService/GetReceiptKeys"] == answered, door.name
        assert "OK" == answers["PaymentService/GetReceiptKeys"].code


@pytest.mark.parametrize(("row", "identity"), CELLS)
async def test_everybody_gets_exactly_what_is_allowed(stack: Stack, orders: Orders, row: Row, identity: str) -> None:
    for door in (stack.rest, stack.grpc, stack.grpc_through_envoy):
        answer = await door.call(row.rpc, await request_of(stack, orders, row), token=token_of(stack, identity))
        assert row.answers[identity] == (answer.code, answer.reason), door.name


async def request_of(stack: Stack, orders: Orders, row: Row) -> Body:
    if row.state is None:
        return row.request
    if row.state in ("webhook", "delivery"):
        return row.request | await webhook_of_alice(stack, with_delivery=row.state == "delivery")
    order = await orders.in_state(row.state)
    match row.rpc:
        case "GetPayment":
            paid = await stack.grpc.call("GetLatestPayment", {"orderId": order}, token=stack.token())
            return {"paymentId": paid.body["id"]}
        case "GetAuditLog":
            token = token_of(stack, "an administrator")
            entries = await stack.grpc.call("ListAuditLogs", {"orderId": order}, token=token)
            return {"entryId": entries.body["data"][0]["id"]}
        case _:
            return row.request | {"orderId": order}


async def webhook_of_alice(stack: Stack, *, with_delivery: bool) -> Body:
    alice = token_of(stack, "alice")
    created = await stack.grpc.call("CreateWebhookEndpoint", ENDPOINT, token=alice)
    names = {"endpointId": created.body["id"]}
    if with_delivery:
        names["deliveryId"] = (await stack.grpc.call("SendTestEvent", names, token=alice)).body["id"]
    return names


async def test_an_order_that_a_service_creates_is_whom_it_names(stack: Stack) -> None:
    service = token_of(stack, "a service for anybody")
    for door in (stack.rest, stack.grpc, stack.grpc_through_envoy):
        owner = f"auth0|{some_id()}"
        created = await door.call("CreateOrder", ORDER | {"userId": owner}, token=service)
        assert owner == created.body["userId"]
        listed = await door.call("ListOrders", {"userId": owner}, token=service)
        assert [created.body["id"]] == [order["id"] for order in listed.body["data"]]
        assert [created.body["id"]] == await ids_of(door, stack.token(owner))
        assert created.body["id"] not in await ids_of(door, service)
        paid = await door.call("PayOrder", {"orderId": created.body["id"], "payment": payment()}, token=service)
        assert "succeeded" == paid.body["status"]
        read = await door.call("GetPayment", {"paymentId": paid.body["id"]}, token=stack.token(owner))
        assert "succeeded" == read.body["status"]


async def ids_of(door: Door, token: str) -> list[str]:
    return [order["id"] for order in (await door.call("ListOrders", {"pageSize": 100}, token=token)).body["data"]]


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256, "4242424242424242"], ids=["empty", "two lines", "long", "PAN"])
async def test_an_owner_is_named_as_tokens_name_one(stack: Stack, door: Door, name: str) -> None:
    answer = await door.call("CreateOrder", ORDER | {"userId": name}, token=token_of(stack, "a service for anybody"))
    assert (422, "INVALID_FIELDS", ["userId"]) == (answer.http, answer.reason, list(answer.faults))


async def test_keys_are_those_of_the_caller_and_not_of_the_owner(stack: Stack, orders: Orders) -> None:
    service, alice, key = token_of(stack, "a service for anybody"), stack.token(), {"idempotency-key": some_id()}
    order = await orders.placed()
    pay = f"/orders/{order}/payment"
    body = json_of(payment(number=DECLINED))
    first = await stack.rest.send("POST", pay, token=service, data=body, headers=key)
    again = await stack.rest.send("POST", pay, token=service, data=body, headers=key)
    assert (first.text, "true") == (again.text, again.headers.get("idempotent-replayed"))
    by_alice = await stack.rest.send("POST", pay, token=alice, data=body, headers=key)
    assert ("PAYMENT_DECLINED", None) == (by_alice.reason, by_alice.headers.get("idempotent-replayed"))
    assert first.body["paymentId"] != by_alice.body["paymentId"]
    made = [
        await stack.rest.send("POST", "/orders", token=token, data=json_of(body), headers=key)
        for token, body in ((service, ORDER | {"userId": "alice"}), (alice, ORDER))
        for _ in range(2)
    ]
    assert [None, "true", None, "true"] == [answer.headers.get("idempotent-replayed") for answer in made]
    assert ["alice"] * 4 == [answer.body["userId"] for answer in made]
    assert 2 == len({answer.body["id"] for answer in made})


def json_of(body: Body) -> bytes:
    return json.dumps(body).encode()


async def test_a_body_cannot_name_another_order_or_owner(stack: Stack, orders: Orders) -> None:
    """Envoy's transcoder would let a body win over the path."""
    mine, other = await orders.placed(), await orders.placed(subject="bob")
    for more in ({"orderId": other}, {"order_id": other}, {"userId": "bob"}, {"payment": payment(), "orderId": other}):
        body = json_of(payment() | more)
        answer = await stack.rest.send("POST", f"/orders/{mine}/payment", token=stack.token(), data=body)
        assert (422, {"": "unknown_field"}) == (answer.http, answer.faults)
    for order, owner in ((mine, "alice"), (other, "bob")):
        read = await stack.grpc.call("GetOrder", {"orderId": order}, token=stack.token(owner))
        assert ("placed", None) == (read.body["status"], read.body.get("latestPaymentId"))


@pytest.mark.parametrize("name", ["a%2Fb", "..%2f", "..%2f..%2fadmin", "%00", "a" * 4096, "{order}%2fpayment"])
async def test_an_id_that_is_none_finds_nothing(stack: Stack, orders: Orders, name: str) -> None:
    order = await orders.placed(subject="bob")
    answer = await stack.rest.send("GET", f"/orders/{name.format(order=order)}", token=stack.token())
    assert answer.http in (400, 404)
    assert "ORDER_NOT_FOUND" != answer.reason


async def test_the_neighbours_of_an_id_are_nobodys(stack: Stack, orders: Orders) -> None:
    known = UUID(await orders.placed(subject="bob")).int
    answers = [
        answer
        for first in range(0, 500, 50)
        for answer in await asyncio.gather(
            *(read_as_alice(stack, str(UUID(int=known + offset - 250))) for offset in range(first, first + 50))
        )
    ]
    assert {("NOT_FOUND", answers[0].text)} == {(answer.code, answer.text) for answer in answers}


async def read_as_alice(stack: Stack, order: str) -> Answer:
    return await stack.grpc.call("GetOrder", {"orderId": order}, token=stack.token())


@pytest.mark.parametrize(
    "path",
    [
        "/payments.v1.paymentservice/payorder",
        "/payments.v1.OrderService/getorder",
        "/Payments.v1.OrderService/GetOrder",
        "//payments.v1.OrderService/GetOrder",
        "/payments.v1.OrderService//GetOrder",
        "/payments.v1.OrderService/GetOrder/",
        "/payments.v1.OrderService/GetOrder/x",
        "/payments.v1.OrderService%2FGetOrder",
        "/payments.v1.OrderService/GetOrder%00",
        "/payments.v1.OrderService/GetOrder?x",
        "/payments.v1.OrderService/DeleteOrder",
    ],
)
async def test_a_method_has_one_name(stack: Stack, orders: Orders, path: str) -> None:
    """With a token that may do everything and a message that the method would take."""
    request = b"\x0a\x24" + (await orders.placed()).encode()
    metadata = (("authorization", f"Bearer {token_of(stack, 'a service for anybody')}"),)
    codes = [
        (await door.channel.unary_unary(path)(request, metadata=metadata, timeout=10).code()).name
        for door in (stack.grpc, stack.grpc_through_envoy)
    ]
    # A path with an escaped slash or NUL is no path to Envoy: 400, which gRPC calls INTERNAL.
    assert ["UNIMPLEMENTED", "INTERNAL" if "%" in path else "UNIMPLEMENTED"] == codes
