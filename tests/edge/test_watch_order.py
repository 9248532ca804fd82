"""Watching an order, through every door: what has happened, then what happens, and how it goes on after a cut."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.doors import Body, Door
from support.orders import Orders
from support.requests import DECLINED, payment
from support.server_sent_events import events_in
from support.stack import Stack

APPROVED_BY_PAYMENT = [("payment.succeeded", "processing", "succeeded"), ("order.statusChanged", "placed", "approved")]
CANCELLED_AND_REFUNDED = [
    ("order.statusChanged", "approved", "cancelled"),
    ("refund.succeeded", "processing", "succeeded"),
]


async def first(count: int, events: AsyncIterator[Body]) -> list[Body]:
    async with asyncio.timeout(20):
        return [await anext(events) for _ in range(count)]


def told(events: list[Body]) -> list[tuple[str, str, str]]:
    return [(event["eventType"], event["previousStatus"], event["newStatus"]) for event in events]


def sequences(events: list[Body]) -> list[int]:
    return [event["sequence"] for event in events]


async def pay(stack: Stack, order: str, **changes: Any) -> None:
    request = {"orderId": order, "payment": payment(**changes)}
    answer = await stack.grpc.call("PayOrder", request, token=stack.token())
    assert answer.code in ("OK", "FAILED_PRECONDITION")


async def test_what_has_happened_comes_first_and_then_what_happens(stack: Stack, door: Any, orders: Orders) -> None:
    order = await orders.in_state("paid")
    async with door.watch(order, token=stack.token()) as events:
        earlier = await first(2, events)
        await stack.grpc.call("CancelOrder", {"orderId": order}, token=stack.token())
        later = await first(2, events)
    assert APPROVED_BY_PAYMENT + CANCELLED_AND_REFUNDED == told(earlier + later)
    assert [1, 2, 3, 4] == sequences(earlier + later)
    assert ["approved", "cancelled"] == [events[-1]["order"]["status"] for events in (earlier, later)]


async def test_who_waits_for_the_first_event_is_told_of_it(stack: Stack, door: Any, orders: Orders) -> None:
    order = await orders.placed()
    async with door.watch(order, token=stack.token()) as events:
        waiting = asyncio.create_task(first(3, events))
        await pay(stack, order, number=DECLINED)
        await pay(stack, order)
        found = await waiting
    assert [("payment.failed", "processing", "failed"), *APPROVED_BY_PAYMENT] == told(found)
    assert ["payorder"] * 3 == [event["changedBy"] for event in found]


async def test_an_event_says_of_what_it_tells(stack: Stack, door: Any, orders: Orders) -> None:
    order = await orders.in_state("paid")
    paid = await stack.grpc.call("GetLatestPayment", {"orderId": order}, token=stack.token())
    read = await door.call("GetOrder", {"orderId": order}, token=stack.token())
    async with door.watch(order, token=stack.token()) as events:
        found = await first(2, events)
    assert [paid.body["id"], order] == [event["subjectId"] for event in found]
    without_receipt = {name: value for name, value in read.body.items() if name != "receipt"}
    assert [without_receipt] * 2 == [event["order"] for event in found]
    assert 2 == len({event["eventId"] for event in found})


async def test_a_watch_goes_on_after_any_event(stack: Stack, door: Any, orders: Orders) -> None:
    order = await orders.in_state("paid")
    async with door.watch(order, token=stack.token(), after=2) as events:
        await stack.grpc.call("CancelOrder", {"orderId": order}, token=stack.token())
        assert [3, 4] == sequences(await first(2, events))
    for after in range(4):
        async with door.watch(order, token=stack.token(), after=after) as events:
            assert list(range(after + 1, 5)) == sequences(await first(4 - after, events))


@pytest.mark.parametrize("state", ["bob's", "nobody's"])
async def test_a_foreign_order_is_watched_as_little_as_none(
    stack: Stack, door: Door, orders: Orders, state: str
) -> None:
    order = await orders.in_state(state)
    read, watched = [
        await door.call(rpc, {"orderId": order}, token=stack.token()) for rpc in ("GetOrder", "WatchOrder")
    ]
    assert ("NOT_FOUND", "ORDER_NOT_FOUND") == (watched.code, watched.reason)
    assert (read.code, read.without_instance()) == (watched.code, watched.without_instance())


@pytest.mark.parametrize(
    ("path", "token", "headers", "status", "reason"),
    [
        pytest.param("/orders/{order}/events", None, {}, 401, "UNAUTHENTICATED", id="no token"),
        pytest.param("/orders/{order}/events", "write:orders", {}, 403, "SCOPE_MISSING", id="no scope"),
        pytest.param("/orders/1/events", "read:orders", {}, 400, "BAD_REQUEST", id="no id"),
        pytest.param("/orders/{order}/events?afterSequence=x", "read:orders", {}, 400, "BAD_REQUEST", id="no number"),
        pytest.param("/orders/{order}/events?afterSequence=-1", "read:orders", {}, 400, "BAD_REQUEST", id="negative"),
        pytest.param("/orders/{order}/events?since=1", "read:orders", {}, 400, "BAD_REQUEST", id="unknown name"),
        pytest.param(
            "/orders/{order}/events", "read:orders", {"last-event-id": "x"}, 400, "BAD_REQUEST", id="no event's number"
        ),
        pytest.param(
            "/orders/{order}/events",
            "read:orders",
            {"last-event-id": "1" * 20},
            400,
            "BAD_REQUEST",
            id="a number too large",
        ),
    ],
)
async def test_what_cannot_be_watched_is_answered_like_any_other_call(
    stack: Stack, orders: Orders, path: str, token: str | None, headers: dict[str, str], status: int, reason: str
) -> None:
    url = path.format(order=await orders.in_state("paid"))
    scoped = stack.token(scope=token) if token else None
    answer = await stack.rest.send("GET", url, token=scoped, headers=headers)
    assert (status, reason) == (answer.http, answer.reason)
    assert "application/problem+json" == answer.headers["content-type"]


async def test_over_rest_an_event_has_the_lines_that_a_browser_goes_by(stack: Stack, orders: Orders) -> None:
    order = await orders.in_state("paid")
    async with stack.rest.stream(f"/orders/{order}/events", token=stack.token()) as response:
        assert (200, "text/event-stream") == (response.status, response.headers["content-type"])
        assert "no-store" == response.headers["cache-control"]
        stream = events_in(response)
        found = [await anext(stream), await anext(stream)]
    assert [("1", "payment.succeeded"), ("2", "order.statusChanged")] == [(event.id, event.type) for event in found]
    assert [1, 2] == [json.loads(event.data)["sequence"] for event in found]


async def test_a_browser_goes_on_after_the_last_event_that_it_has_seen(stack: Stack, orders: Orders) -> None:
    order = await orders.in_state("paid")
    for query in ("", "?afterSequence=0", "?afterSequence=2"):
        path, last = f"/orders/{order}/events{query}", {"last-event-id": "1"}
        async with stack.rest.stream(path, token=stack.token(), headers=last) as response:
            assert "2" == (await anext(events_in(response))).id


async def test_a_stream_on_which_nothing_happens_is_kept_alive_by_comments(stack: Stack, orders: Orders) -> None:
    path = f"/orders/{await orders.placed()}/events"
    async with stack.rest.stream(path, token=stack.token()) as response, asyncio.timeout(20):
        lines = [await response.content.readline() for _ in range(6)]
    assert [b":\n", b"\n"] * 3 == lines


async def test_text_of_others_is_never_taken_for_an_event(stack: Stack, orders: Orders) -> None:
    text = 'data: {"sequence":7,"eventId":"x","eventType":"y" data: {"sequence":0,'
    order = await orders.placed(description=text)
    await pay(stack, order)
    async with stack.rest.stream(f"/orders/{order}/events", token=stack.token()) as response:
        event = await anext(events_in(response))
    assert ("1", text) == (event.id, json.loads(event.data)["order"]["description"])
