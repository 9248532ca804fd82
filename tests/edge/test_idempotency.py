"""The same key and the same request get the same answer, through both doors (contract section 4)."""

import asyncio
import json
from functools import partial
from typing import Any
from uuid import uuid4

import grpc
import pytest

from payments.v1.payment_service_pb2 import PayOrderRequest
from support.doors import GrpcDoor, repeat_while_busy, to_message
from support.requests import APPROVED, DECLINED, ORDER, OUTCOME_UNKNOWN, payment, varied
from support.stack import Stack

Body = dict[str, Any]


def new_key() -> str:
    return uuid4().hex


async def new_order(stack: Stack) -> str:
    created = await stack.rest.call("CreateOrder", ORDER, token=stack.token())
    return str(created.body["id"])


async def pay_rest(stack: Stack, order: str, body: Body, key: str, **headers: str) -> Any:
    sending = partial(
        *(stack.rest.send, "POST", f"/orders/{order}/payment"),
        token=stack.token(),
        data=json.dumps(body).encode(),
        headers={"idempotency-key": key} | headers,
    )
    return await repeat_while_busy(sending)


async def pay_native(door: GrpcDoor, token: str, order: str, body: Body, *keys: str) -> tuple[bytes, dict[str, str]]:
    """The raw bytes of the answer: the message, or the Status of an error."""
    call = door.channel.unary_unary(
        "/payments.v1.PaymentService/PayOrder", request_serializer=PayOrderRequest.SerializeToString
    )(
        to_message("PayOrder", {"orderId": order, "payment": body}),
        metadata=(("authorization", f"Bearer {token}"), *(("idempotency-key", key) for key in keys)),
        timeout=20,
    )
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        return bytes(trailers["grpc-status-details-bin"]), {key: str(value) for key, value in trailers.items()}
    return bytes(answer), {key: str(value) for key, value in await call.initial_metadata()}


@pytest.mark.parametrize("number", [APPROVED, DECLINED], ids=["approved", "declined"])
async def test_a_repeated_payment_gets_the_first_answer_byte_for_byte(stack: Stack, number: str) -> None:
    order, key = await new_order(stack), new_key()
    body = payment(number=number)
    first, first_metadata = await pay_native(stack.grpc, stack.token(), order, body, key)
    again, again_metadata = await pay_native(stack.grpc_through_envoy, stack.token(), order, body, key)
    assert first == again
    assert (None, "true") == (
        first_metadata.get("idempotent-replayed"),
        again_metadata.get("idempotent-replayed"),
    )
    listed = await stack.grpc.call("ListPayments", {"orderId": order}, token=stack.token())
    assert 1 == len(listed.body["data"])


@pytest.mark.parametrize("number", [APPROVED, DECLINED], ids=["approved", "declined"])
async def test_a_repeated_rest_payment_gets_the_first_answer(stack: Stack, number: str) -> None:
    order, key = await new_order(stack), new_key()
    first = await pay_rest(stack, order, payment(number=number), key)
    again = await pay_rest(stack, order, payment(number=number), key)
    assert (first.http, first.body, first.headers.get("location")) == (
        again.http,
        again.body,
        again.headers.get("location"),
    )
    assert "idempotent-replayed" not in first.headers
    assert "true" == again.headers["idempotent-replayed"]


SAME = {
    "another CVC": payment(cvc="999"),
    "no CVC": payment(cvc=...),
    "fields in another order": dict(reversed(payment().items())),
}
OTHER = {
    "another card": payment(number="5555555555554444"),
    "another amount": payment(amount="49.98"),
    "another holder": payment(name="R. Roe"),
    "another address": payment(addressCity="Leeds"),
    "another month": payment(expMonth=11),
}


@pytest.mark.parametrize("body", SAME.values(), ids=SAME.keys())
async def test_what_does_not_matter_may_differ_under_a_key(stack: Stack, body: Body) -> None:
    order, key = await new_order(stack), new_key()
    first = await pay_rest(stack, order, payment(), key)
    again = await pay_rest(stack, order, body, key)
    assert (201, first.body) == (again.http, again.body)


@pytest.mark.parametrize("body", OTHER.values(), ids=OTHER.keys())
async def test_another_request_under_the_same_key_is_refused(stack: Stack, body: Body) -> None:
    order, key = await new_order(stack), new_key()
    await pay_rest(stack, order, payment(), key)
    again = await pay_rest(stack, order, body, key)
    assert (422, "IDEMPOTENCY_KEY_REUSED") == (again.http, again.reason)


async def test_another_order_under_the_same_key_is_refused(stack: Stack) -> None:
    first, second, key = await new_order(stack), await new_order(stack), new_key()
    await pay_rest(stack, first, payment(), key)
    again = await pay_rest(stack, second, payment(), key)
    assert (422, "IDEMPOTENCY_KEY_REUSED") == (again.http, again.reason)
    assert "placed" == (await stack.rest.call("GetOrder", {"orderId": second}, token=stack.token())).body["status"]


async def test_quoted_and_bare_are_the_same_key(stack: Stack) -> None:
    order, key = await new_order(stack), new_key()
    first = await pay_rest(stack, order, payment(), f'"{key}"')
    again = await pay_rest(stack, order, payment(), key)
    assert (201, first.body, "true") == (again.http, again.body, again.headers["idempotent-replayed"])


async def test_two_callers_have_keys_of_their_own(stack: Stack) -> None:
    key = new_key()
    answers = []
    for subject in ("alice", "bob"):
        token = stack.token(subject)
        order = (await stack.grpc.call("CreateOrder", ORDER, token=token)).body["id"]
        answers.append(await pay_native(stack.grpc, token, order, payment(), key))
    assert ["idempotent-replayed" in metadata for _, metadata in answers] == [False, False]


async def test_a_payment_that_was_cancelled_with_its_order_is_never_answered_as_made(stack: Stack) -> None:
    """Who looks at the status alone would send the goods."""
    order, key = await new_order(stack), new_key()
    assert 202 == (await pay_rest(stack, order, payment(number=OUTCOME_UNKNOWN), key)).http
    cancel = {"orderId": order, "reason": "because"}
    await stack.grpc.call("ForceCancelOrder", cancel, token=stack.token("root", "admin"))
    again = await pay_rest(stack, order, payment(number=OUTCOME_UNKNOWN), key)
    assert (409, "ORDER_CANCELLED", "true") == (again.http, again.reason, again.headers["idempotent-replayed"])


async def test_a_key_whose_payment_is_open_is_in_progress(stack: Stack) -> None:
    order, key = await new_order(stack), new_key()
    first = await pay_rest(stack, order, payment(number=OUTCOME_UNKNOWN), key)
    again = await pay_rest(stack, order, payment(number=OUTCOME_UNKNOWN), key)
    assert (202, "processing") == (first.http, first.body["status"])
    assert (409, "PAYMENT_IN_PROGRESS", first.body["id"]) == (again.http, again.reason, again.body["paymentId"])


async def test_a_refusal_is_not_kept_under_its_key(stack: Stack) -> None:
    order, key = await new_order(stack), new_key()
    refused = await pay_rest(stack, order, payment(amount="1.00"), key)
    paid = await pay_rest(stack, order, payment(), key)
    assert (422, 201) == (refused.http, paid.http)


@pytest.mark.parametrize(
    "key",
    ["", " ", "k" * 256, "ключ", '"', '"unclosed', 'a"b', '""', "4242424242424242", "4242 4242 4242 4242"],
    ids=[
        "empty",
        "space",
        "256",
        "not ASCII",
        "quote",
        "unclosed",
        "inner quote",
        "quoted nothing",
        "card",
        "spaced card",
    ],
)
async def test_a_key_of_another_form_is_refused(stack: Stack, key: str) -> None:
    order = await new_order(stack)
    answer = await pay_rest(stack, order, payment(), key)
    assert (400, "BAD_REQUEST") == (answer.http, answer.reason)
    assert "placed" == (await stack.rest.call("GetOrder", {"orderId": order}, token=stack.token())).body["status"]


async def test_two_keys_at_once_are_refused(stack: Stack) -> None:
    order = await new_order(stack)
    details, _ = await pay_native(stack.grpc, stack.token(), order, payment(), "one", "two")
    assert b"BAD_REQUEST" in details


async def test_a_key_of_255_characters_is_taken(stack: Stack) -> None:
    key = new_key().ljust(255, "k")
    order = await new_order(stack)
    assert 201 == (await pay_rest(stack, order, payment(), key)).http


async def test_an_order_is_created_once_under_a_key(stack: Stack) -> None:
    headers = {"idempotency-key": new_key()}
    body = varied(ORDER, metadata={"z": "1", "a": "2", "m": "3", "b": "4"}, description="A pet")
    sent = json.dumps(body).encode()
    create = partial(stack.rest.send, "POST", "/orders", token=stack.token(), data=sent, headers=headers)
    answers = await asyncio.gather(*(repeat_while_busy(create) for _ in range(10)))
    assert {201} == {answer.http for answer in answers}
    assert 1 == len({json.dumps(answer.body) for answer in answers})
    other = json.dumps(varied(body, totalAmount="1.00")).encode()
    refused = await stack.rest.send("POST", "/orders", token=stack.token(), data=other, headers=headers)
    assert (422, "IDEMPOTENCY_KEY_REUSED") == (refused.http, refused.reason)


async def test_an_order_is_cancelled_and_refunded_once_under_a_key(stack: Stack) -> None:
    order, headers = await new_order(stack), {"idempotency-key": new_key()}
    await stack.rest.call("PayOrder", {"orderId": order, "payment": payment()}, token=stack.token())
    answers = [
        await stack.rest.send("DELETE", f"/orders/{order}", token=stack.token(), headers=headers) for _ in range(2)
    ]
    assert ["cancelled", "cancelled"] == [answer.body["status"] for answer in answers]
    assert answers[0].body == answers[1].body
    assert "true" == answers[1].headers["idempotent-replayed"]
    again = await stack.rest.call("PayOrder", {"orderId": order, "payment": payment()}, token=stack.token())
    assert (409, "ORDER_CANCELLED") == (again.http, again.reason)


async def test_a_hundred_at_once_under_one_key_are_one_payment(stack: Stack) -> None:
    order, key = await new_order(stack), new_key()
    answers = await asyncio.gather(*(pay_rest(stack, order, payment(), key) for _ in range(100)))
    paid = [answer for answer in answers if answer.http == 201]
    assert {"PAYMENT_IN_PROGRESS", None} >= {answer.reason for answer in answers}
    assert 1 == len({json.dumps(answer.body) for answer in paid})
    listed = await stack.rest.call("ListPayments", {"orderId": order}, token=stack.token())
    assert ["succeeded"] == [attempt["status"] for attempt in listed.body["data"]]


async def test_every_key_that_cancelled_an_order_is_kept(stack: Stack) -> None:
    first, second, keys = await new_order(stack), await new_order(stack), (new_key(), new_key())

    async def cancel(order: str, key: str) -> Any:
        headers = {"idempotency-key": key}
        return await stack.rest.send("DELETE", f"/orders/{order}", token=stack.token(), headers=headers)

    cancelled = [await cancel(first, key) for key in (*keys, keys[1])]
    assert [(200, None), (200, None), (200, "true")] == [
        (answer.http, answer.headers.get("idempotent-replayed")) for answer in cancelled
    ]
    other = await cancel(second, keys[1])
    assert (422, "IDEMPOTENCY_KEY_REUSED") == (other.http, other.reason)
