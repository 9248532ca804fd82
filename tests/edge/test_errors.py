"""Every error of the contract, the same through every door: status, reason, codes of fields, and the problem itself."""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from payorder.config import DEVELOPMENT_ISSUER
from support.doors import Answer, Body
from support.orders import Orders
from support.requests import DECLINED, NOT_CHARGED, ORDER, OUTCOME_UNKNOWN, bank_payment, payment, some_id
from support.stack import Stack, running_envoy, running_stack

READ_ONLY, WRITE_ONLY = "read:orders", "write:orders"
BOTH = f"{READ_ONLY} {WRITE_ONLY}"


@dataclass(frozen=True, slots=True)
class Row:
    """A call about an order in `state`, and its answer. `names` are the members of ErrorInfo's metadata."""

    says: str
    rpc: str
    code: str
    http: int
    reason: str
    state: str = "placed"
    request: Body = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    scope: str = BOTH
    retry_after: str | None = None


def pay(**changes: object) -> Body:
    return {"payment": payment(**changes)}


def declined(code: str, **source: object) -> Row:
    return Row(
        f"a payment declined with {code}",
        "PayOrder",
        "FAILED_PRECONDITION",
        422,
        "PAYMENT_DECLINED",
        request=pay(**source),
        faults={"source": code},
        names=frozenset({"paymentId", "declineCode"}),
    )


def without_scope(rpc: str, granted: str) -> Row:
    return Row(
        f"{rpc} without its scope",
        rpc,
        "PERMISSION_DENIED",
        403,
        "SCOPE_MISSING",
        request=REQUESTS.get(rpc, {}),
        names=frozenset({"scope"}),
        scope=granted,
    )


def not_found(rpc: str, state: str) -> Row:
    return Row(f"{rpc} of {state} order", rpc, "NOT_FOUND", 404, "ORDER_NOT_FOUND", state, REQUESTS.get(rpc, {}))


def broken(says: str, request: Body, faults: Mapping[str, str], rpc: str = "PayOrder") -> Row:
    return Row(says, rpc, "INVALID_ARGUMENT", 422, "INVALID_FIELDS", request=request, faults=faults)


def no_id(rpc: str) -> Row:
    return Row(
        f"{rpc} of an id that is no UUID", rpc, "INVALID_ARGUMENT", 400, "BAD_REQUEST", "no-uuid", REQUESTS.get(rpc, {})
    )


REQUESTS = {"PayOrder": pay(), "CreateOrder": ORDER, "RenderReceipt": {"format": "pdf"}}
ABOUT_AN_ORDER = (
    *("GetOrder", "CancelOrder", "PayOrder", "GetLatestPayment", "ListPayments", "GetReceipt", "RenderReceipt"),
)
PAYMENT_ID = frozenset({"paymentId"})

ROWS = (
    *(no_id(rpc) for rpc in ABOUT_AN_ORDER),
    Row(
        "a broken field",
        "PayOrder",
        "INVALID_ARGUMENT",
        422,
        "INVALID_FIELDS",
        request=pay(amount="4e1"),
        faults={"amount": "invalid_format"},
    ),
    broken(
        "several broken fields",
        pay(amount="4e1", number="4242424242424241", expMonth=13),
        {"amount": "invalid_format", "source.expMonth": "out_of_range"},
    ),
    broken(
        "a source without its required fields",
        {"payment": {"amount": "49.99", "currency": "GBP"}},
        {"source": "required"},
    ),
    broken("a broken field of an order", ORDER | {"totalAmount": "0"}, {"totalAmount": "not_positive"}, "CreateOrder"),
    broken("a page of no size", {"pageSize": 0}, {"pageSize": "out_of_range"}, "ListOrders"),
    broken("a page after no page", {"pageToken": "AAAA"}, {"pageToken": "invalid_format"}, "ListOrders"),
    Row(
        "more than the total",
        "PayOrder",
        "INVALID_ARGUMENT",
        422,
        "AMOUNT_MISMATCH",
        request=pay(amount="50.00"),
        faults={"amount": "amount_mismatch"},
    ),
    Row(
        "less than the total",
        "PayOrder",
        "INVALID_ARGUMENT",
        422,
        "AMOUNT_MISMATCH",
        request=pay(amount="49.98"),
        faults={"amount": "amount_mismatch"},
    ),
    Row(
        "another currency",
        "PayOrder",
        "INVALID_ARGUMENT",
        422,
        "CURRENCY_MISMATCH",
        request=pay(currency="EUR"),
        faults={"currency": "currency_mismatch"},
    ),
    without_scope("CreateOrder", READ_ONLY),
    without_scope("CancelOrder", READ_ONLY),
    without_scope("PayOrder", READ_ONLY),
    without_scope("GetOrder", WRITE_ONLY),
    without_scope("ListOrders", WRITE_ONLY),
    without_scope("GetLatestPayment", WRITE_ONLY),
    without_scope("ListPayments", WRITE_ONLY),
    *(not_found(rpc, state) for rpc in ABOUT_AN_ORDER for state in ("nobody's", "bob's")),
    without_scope("GetReceipt", WRITE_ONLY),
    without_scope("RenderReceipt", WRITE_ONLY),
    *(
        Row(f"{rpc} of {state}", rpc, "NOT_FOUND", 404, "RECEIPT_NOT_FOUND", state, REQUESTS.get(rpc, {}))
        for rpc in ("GetReceipt", "RenderReceipt")
        for state in ("placed", "cancelled")
    ),
    *(
        broken(f"a receipt with {name} {value}", {"format": "pdf"} | {name: value}, {name: code}, "RenderReceipt")
        for name, value, code in (
            ("format", "xml", "not_supported"),
            ("format", "../../x", "not_supported"),
            ("format", "html\r\nSet-Cookie: a=b", "not_supported"),
            ("locale", "../../de", "invalid_format"),
            ("locale", "en_GB", "invalid_format"),
            ("locale", "d" * 9, "invalid_format"),
        )
    ),
    Row("the latest payment of an order without any", "GetLatestPayment", "NOT_FOUND", 404, "ORDER_NOT_FOUND"),
    Row(
        "an order that is paid",
        "PayOrder",
        "FAILED_PRECONDITION",
        409,
        "ORDER_ALREADY_PAID",
        "paid",
        pay(),
        names=PAYMENT_ID,
    ),
    Row(
        "an order that is paid, whatever the amount",
        "PayOrder",
        "FAILED_PRECONDITION",
        409,
        "ORDER_ALREADY_PAID",
        "paid",
        pay(amount="1"),
        names=PAYMENT_ID,
    ),
    Row("an order that was cancelled", "PayOrder", "FAILED_PRECONDITION", 409, "ORDER_CANCELLED", "cancelled", pay()),
    Row(
        "a payment while another is in progress",
        "PayOrder",
        "ABORTED",
        409,
        "PAYMENT_IN_PROGRESS",
        "processing",
        pay(),
        names=PAYMENT_ID,
    ),
    Row(
        "cancelling while a payment is in progress",
        "CancelOrder",
        "ABORTED",
        409,
        "PAYMENT_IN_PROGRESS",
        "processing",
        names=PAYMENT_ID,
    ),
    declined("card_declined", number=DECLINED),
    declined("insufficient_funds", number="4000000000009995"),
    declined("expired_card", number="4000000000000069"),
    declined("incorrect_cvc", number="4000000000000127"),
    declined("processing_error", number="4000000000000119"),
    # These are told as one: which of them it is would tell what the card is good for.
    *(
        declined("card_declined", number=number)
        for number in (
            "4000000000006975",
            "4000000000009987",
            "4000000000009979",
            "4100000000000019",
            "4000002500003155",
        )
    ),
    Row(
        "a bank account that is declined",
        "PayOrder",
        "FAILED_PRECONDITION",
        422,
        "PAYMENT_DECLINED",
        request={"payment": bank_payment(number="000222222227", sortCode=..., routingNumber="110000000", country="us")},
        faults={"source": "insufficient_funds"},
        names=frozenset({"paymentId", "declineCode"}),
    ),
    Row(
        "a processor that certainly did not charge",
        "PayOrder",
        "UNAVAILABLE",
        503,
        "PROCESSOR_UNAVAILABLE",
        request=pay(number=NOT_CHARGED),
        names=PAYMENT_ID,
        retry_after="5",
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.says)
async def test_an_error_is_the_same_through_every_door(stack: Stack, orders: Orders, row: Row) -> None:
    order = row.state if row.state == "no-uuid" else await orders.in_state(row.state)
    request = row.request | ({"orderId": order} if row.rpc in ABOUT_AN_ORDER else {})
    answers = [
        await door.call(row.rpc, request, token=stack.token(scope=row.scope))
        for door in (stack.rest, stack.grpc, stack.grpc_through_envoy)
    ]
    rest, *native = answers
    for answer in answers:
        assert (row.code, row.http, row.reason) == (answer.code, answer.http, answer.reason)
        assert row.faults == answer.faults
        assert ("paymentId" in row.names) == ("paymentId" in answer.body)
        assert row.retry_after == answer.headers.get("retry-after")
    for answer in native:
        assert row.names == set(answer.info)
        assert answer.info.get("paymentId") == answer.body.get("paymentId")
        assert comparable(rest, row) == comparable(answer, row)
    assert_is_problem(rest)


def comparable(answer: Answer, row: Row) -> Body:
    """A problem, less what differs: the path, the id of a payment where each call makes one, and the words of a 400.

    Envoy refuses what cannot be read before the service sees it, and is not told which part it is.
    """
    differing = {"paymentId"} if row.state == "placed" else {"detail"} if row.http == 400 else set()
    return {name: value for name, value in answer.without_instance().items() if name not in differing}


def assert_is_problem(answer: Answer) -> None:
    """The members of RFC 9457 and ours, and the headers of every error."""
    members = {"type", "title", "status", "detail", "instance", "reason", "errors"}
    assert members == set(answer.body) - {"paymentId"}
    assert answer.http == answer.body["status"]
    assert f"urn:payorder:problem:{answer.body['reason'].lower().replace('_', '-')}" == answer.body["type"]
    assert all({"field", "message", "code"} == set(entry) for entry in answer.body["errors"])
    assert "application/problem+json" == answer.headers["content-type"]
    assert "no-store" == answer.headers["cache-control"]
    assert 36 == len(answer.headers["x-request-id"])
    assert ("Bearer" if answer.http == 401 else None) == answer.headers.get("www-authenticate")
    assert not [name for name in answer.headers if name.startswith(("grpc-", "x-envoy-"))]


async def test_an_unknown_order_and_a_foreign_one_get_the_same_bytes(stack: Stack, orders: Orders) -> None:
    unknown, foreign = some_id(), await orders.in_state("bob's")
    for rpc in ABOUT_AN_ORDER:
        for door in (stack.rest, stack.grpc, stack.grpc_through_envoy):
            texts = []
            for order in (unknown, foreign):
                request = REQUESTS.get(rpc, {}) | {"orderId": order}
                answer = await door.call(rpc, request, token=stack.token())
                texts.append((answer.code, answer.text.replace(order, "-"), sorted(answer.headers)))
            assert texts[0][:2] == (texts[1][0], _without_request_id(texts[1][1], texts[0][1]))
            assert texts[0][2] == texts[1][2]


def _without_request_id(text: str, other: str) -> str:
    # Native answers carry Envoy's request id among their trailers, of the same length and always different.
    return other if len(text) == len(other) and "x-request-id" in text else text


async def test_a_foreign_payment_is_not_found(stack: Stack, orders: Orders) -> None:
    order = await orders.in_state("paid")
    paid = await stack.grpc.call("GetLatestPayment", {"orderId": order}, token=stack.token())
    for door in (stack.rest, stack.grpc, stack.grpc_through_envoy):
        for payment_id in (paid.body["id"], some_id()):
            answer = await door.call("GetPayment", {"paymentId": payment_id}, token=stack.token("bob"))
            assert ("NOT_FOUND", 404, "ORDER_NOT_FOUND") == (answer.code, answer.http, answer.reason)


async def test_without_a_token_nobody_is_answered(stack: Stack) -> None:
    """tests/edge/test_tokens.py has every token that is not accepted."""
    doors = (stack.rest, stack.grpc, stack.grpc_through_envoy)
    answers = [await door.call("CreateOrder", ORDER, token=None) for door in doors]
    for answer in answers:
        assert ("UNAUTHENTICATED", 401, "UNAUTHENTICATED") == (answer.code, answer.http, answer.reason)
        assert answers[0].without_instance() == answer.without_instance()
    assert_is_problem(answers[0])


async def test_a_token_in_the_query_is_an_unknown_parameter(stack: Stack) -> None:
    answer = await stack.rest.send("GET", "/orders", query={"access_token": stack.token()})
    assert (400, "BAD_REQUEST") == (answer.http, answer.reason)


# What only REST has: method, path, headers, body -> status, reason, codes of fields. {order} is a placed one.
JSON = "application/json"
GOOD = b'{"totalAmount":"49.99","currency":"GBP"}'
REST_ROWS = (
    ("a body that is not JSON", "POST", "/orders", {}, b"totalAmount=49.99", 400, "BAD_REQUEST", {}),
    ("a body in single quotes", "POST", "/orders", {}, b"{'totalAmount':'49.99'}", 400, "BAD_REQUEST", {}),
    ("no body", "POST", "/orders", {}, b"", 400, "BAD_REQUEST", {}),
    (
        "an empty object",
        "POST",
        "/orders",
        {},
        b"{}",
        422,
        "INVALID_FIELDS",
        {"totalAmount": "required", "currency": "required"},
    ),
    (
        "a number where text belongs",
        "POST",
        "/orders",
        {},
        b'{"totalAmount":49.99,"currency":"GBP"}',
        400,
        "BAD_REQUEST",
        {},
    ),
    (
        "an object where text belongs",
        "POST",
        "/orders",
        {},
        b'{"totalAmount":{},"currency":"GBP"}',
        400,
        "BAD_REQUEST",
        {},
    ),
    (
        "an unknown field",
        "POST",
        "/orders",
        {},
        GOOD[:-1] + b',"amuont":"1"}',
        422,
        "INVALID_FIELDS",
        {"": "unknown_field"},
    ),
    (
        "a field twice",
        "POST",
        "/orders",
        {},
        GOOD[:-1] + b',"currency":"GBP"}',
        422,
        "INVALID_FIELDS",
        {"": "duplicate_field"},
    ),
    (
        "an unknown field of the source",
        "POST",
        "/orders/{order}/payment",
        {},
        b'{"source":{"nmae":"J. Doe"}}',
        422,
        "INVALID_FIELDS",
        {"source": "unknown_field"},
    ),
    ("an unknown query parameter", "GET", "/orders?owner=bob", {}, None, 400, "BAD_REQUEST", {}),
    ("a known query parameter twice", "GET", "/orders?pageSize=1&pageSize=2", {}, None, 400, "BAD_REQUEST", {}),
    ("a page size that is no number", "GET", "/orders?pageSize=many", {}, None, 400, "BAD_REQUEST", {}),
    ("a body on a GET", "GET", "/orders", {}, b"{}", 400, "BAD_REQUEST", {}),
    ("an unknown path", "GET", "/order", {}, None, 404, "NOT_FOUND", {}),
    ("the root", "GET", "/", {}, None, 404, "NOT_FOUND", {}),
    ("a path with a slash more", "GET", "/orders/", {}, None, 404, "NOT_FOUND", {}),
    ("a method that the path has not", "PUT", "/orders", {}, GOOD, 404, "NOT_FOUND", {}),
    (
        "a body of 33 KB",
        "POST",
        "/orders",
        {},
        b'{"description":"' + b"a" * 33_000 + b'"}',
        413,
        "REQUEST_TOO_LARGE",
        {},
    ),
    (
        "a body of plain text",
        "POST",
        "/orders",
        {"content-type": "text/plain"},
        GOOD,
        415,
        "UNSUPPORTED_MEDIA_TYPE",
        {},
    ),
    ("a compressed body", "POST", "/orders", {"content-encoding": "gzip"}, GOOD, 415, "UNSUPPORTED_MEDIA_TYPE", {}),
)


@pytest.mark.parametrize("row", REST_ROWS, ids=[row[0] for row in REST_ROWS])
async def test_what_only_rest_can_get_wrong_is_a_problem(stack: Stack, orders: Orders, row: tuple[Any, ...]) -> None:
    _, method, path, headers, body, status, reason, faults = row
    url = path.format(order=await orders.placed()) if "{order}" in path else path
    answer = await stack.rest.send(method, url, token=stack.token(), data=body, headers=headers)
    assert (status, reason, faults) == (answer.http, answer.reason, answer.faults)
    assert_is_problem(answer)


async def test_a_problem_tells_its_path_and_of_an_unknown_path_nothing(stack: Stack) -> None:
    order = some_id()
    known = await stack.rest.call("GetOrder", {"orderId": order}, token=stack.token())
    assert f"/orders/{order}" == known.body["instance"]
    unknown = await stack.rest.send("GET", "/orders/4444333322221111/payment/x", token=stack.token())
    assert "/orders/-/payment/-" == unknown.body["instance"]


async def test_a_deadline_shorter_than_a_charge_is_refused(stack: Stack, orders: Orders) -> None:
    order = await orders.placed()
    for door in (stack.grpc, stack.grpc_through_envoy):
        request = {"orderId": order} | pay()
        answer = await door.call("PayOrder", request, token=stack.token(), timeout_seconds=1)
        assert ("DEADLINE_EXCEEDED", 504, "DEADLINE_TOO_SHORT") == (answer.code, answer.http, answer.reason)
    attempts = await stack.grpc.call("ListPayments", {"orderId": order}, token=stack.token())
    assert [] == attempts.body["data"]


@pytest.mark.parametrize("value", ["1m", "1S", "1n", "tomorrow", ""])
async def test_a_rest_caller_sets_no_deadline(stack: Stack, orders: Orders, value: str) -> None:
    path = f"/orders/{await orders.placed()}/payment"
    headers = {"grpc-timeout": value}
    answer = await stack.rest.send(
        "POST", path, token=stack.token(), data=json.dumps(payment()).encode(), headers=headers
    )
    assert (201, "succeeded") == (answer.http, answer.body["status"])


async def test_success_has_the_documented_status_and_headers(stack: Stack) -> None:
    """201 and Location for what is created, 200 for the rest."""
    token = stack.token()
    created = await stack.rest.call("CreateOrder", ORDER, token=token)
    order = created.body["id"]
    paid = await stack.rest.call("PayOrder", {"orderId": order} | pay(), token=token)
    other = await stack.rest.call("CreateOrder", ORDER, token=token)
    answers = [
        (created, 201, f"/orders/{order}"),
        (paid, 201, f"/payments/{paid.body['id']}"),
        (await stack.rest.call("GetOrder", {"orderId": order}, token=token), 200, None),
        (await stack.rest.call("ListOrders", {"pageSize": 1}, token=token), 200, None),
        (await stack.rest.call("GetLatestPayment", {"orderId": order}, token=token), 200, None),
        (await stack.rest.call("GetPayment", {"paymentId": paid.body["id"]}, token=token), 200, None),
        (await stack.rest.call("ListPayments", {"orderId": order}, token=token), 200, None),
        (await stack.rest.call("CancelOrder", {"orderId": other.body["id"]}, token=token), 200, None),
    ]
    for answer, status, location in answers:
        assert (status, location) == (answer.http, answer.headers.get("location"))
        assert ("application/json", "no-store") == (answer.headers["content-type"], answer.headers["cache-control"])
        assert 36 == len(answer.headers["x-request-id"])
        assert not [name for name in answer.headers if name.startswith(("grpc-", "x-envoy-", "x-http-status"))]


async def test_while_the_outcome_is_unknown_the_answer_is_202_and_where_to_look(stack: Stack, orders: Orders) -> None:
    order = await orders.placed()
    answer = await stack.rest.call("PayOrder", {"orderId": order} | pay(number=OUTCOME_UNKNOWN), token=stack.token())
    assert (202, "processing") == (answer.http, answer.body["status"])
    assert f"/payments/{answer.body['id']}" == answer.headers["location"]
    seen = await stack.rest.send("GET", answer.headers["location"], token=stack.token())
    assert (200, answer.body) == (seen.http, seen.body)
    order = await orders.placed()
    native = await stack.grpc.call("PayOrder", {"orderId": order} | pay(number=OUTCOME_UNKNOWN), token=stack.token())
    assert ("OK", "processing") == (native.code, native.body["status"])


async def test_more_requests_than_the_limit_are_refused(stack: Stack, tmp_path: Path) -> None:
    issuers = {DEVELOPMENT_ISSUER: str(stack.issuer.jwks_path.resolve())}
    limited = running_envoy(stack.grpc_address, tmp_path, issuers=issuers, requests_per_second=1)
    async with limited as (rest, native):
        answers = await asyncio.gather(*(rest.call("ListOrders", {}, token=stack.token()) for _ in range(100)))
        refused = [answer for answer in answers if answer.http != 200]
        assert refused
        for answer in refused:
            assert (429, "RATE_LIMITED", "1") == (answer.http, answer.reason, answer.headers["retry-after"])
            assert_is_problem(answer)
        answers = await asyncio.gather(*(native.call("ListOrders", {}, token=stack.token()) for _ in range(100)))
        assert "RESOURCE_EXHAUSTED" in {answer.code for answer in answers}


async def test_a_service_that_hangs_is_504_and_one_that_is_gone_is_503(tmp_path: Path) -> None:
    async with running_stack(tmp_path, f"sqlite:///{tmp_path / 'payorder.db'}") as stack:
        os.kill(stack.service_process_id, signal.SIGSTOP)
        hanging = await stack.rest.call("ListOrders", {}, token=stack.token())
        os.kill(stack.service_process_id, signal.SIGKILL)
        assert (504, "DEADLINE_EXCEEDED") == (hanging.http, hanging.reason)
        assert_is_problem(hanging)
        gone = await stack.rest.call("CreateOrder", ORDER, token=stack.token(), repeats_busy=False)
        while gone.http == 500:  # A connection that breaks leaves open what happened; then there is none.
            gone = await stack.rest.call("CreateOrder", ORDER, token=stack.token(), repeats_busy=False)
        assert (503, "BUSY", "1") == (gone.http, gone.reason, gone.headers["retry-after"])
        assert_is_problem(gone)
