"""Whoever makes and pays orders from one address is limited at Envoy, whatever it says of where it comes from."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from uuid import uuid4

from payorder.config import DEVELOPMENT_ISSUER
from support.doors import Answer, Door, GrpcDoor, RestDoor
from support.requests import payment
from support.stack import Stack, running_envoy

AT_MOST = 5
CHEAP = {"totalAmount": "0.50", "currency": "GBP"}
# As an address is told; of IPv6 a whole network is one caller.
NEIGHBOURS = ("2001:db8:7::1", "2001:db8:7::ffff")
STRANGER = "203.0.113.8"


@asynccontextmanager
async def limiting(stack: Stack, folder: Path, **settings: int) -> AsyncIterator[tuple[RestDoor, GrpcDoor]]:
    issuers = {DEVELOPMENT_ISSUER: str(stack.issuer.jwks_path.resolve())}
    envoy = running_envoy(stack.grpc_address, folder, issuers=issuers, address_writes_per_minute=AT_MOST, **settings)
    async with envoy as doors:
        yield doors


def assert_limited(answer: Answer) -> None:
    assert ("RESOURCE_EXHAUSTED", 429, "RATE_LIMITED") == (answer.code, answer.http, answer.reason)
    assert "urn:payorder:problem:rate-limited" == answer.body["type"]
    # One is allowed again every twelve seconds.
    assert 1 <= int(answer.headers["retry-after"]) <= 60 / AT_MOST


async def test_a_thousand_cheap_orders_of_one_address_are_stopped(stack: Stack, tmp_path: Path) -> None:
    """M3, over both doors: each by another account; whoever is refused leaves nothing behind."""
    owners = [f"cheap-{uuid4()}" for _ in range(40)]
    async with limiting(stack, tmp_path) as doors:

        async def order(number: int) -> Answer:
            return await doors[number % 2].call("CreateOrder", CHEAP, token=stack.token(owners[number]))

        began = monotonic()
        answers = await asyncio.gather(*map(order, range(len(owners))))
        refilled = (monotonic() - began) * AT_MOST / 60 + 1
        made = Counter(answer.code for answer in answers)
        assert {"OK", "RESOURCE_EXHAUSTED"} == set(made)
        assert AT_MOST <= made["OK"] <= AT_MOST + refilled
        for answer in answers:
            if answer.code != "OK":
                assert_limited(answer)
        listed = [await stack.grpc.call("ListOrders", {}, token=stack.token(owner)) for owner in owners]
        assert made["OK"] == sum(len(each.body["data"]) for each in listed)
        # Paying counts too; reading does not, nor do callers inside, who come without Envoy.
        theirs = await stack.grpc.call("CreateOrder", CHEAP, token=stack.token())
        assert "OK" == theirs.code
        paying = {"orderId": theirs.body["id"], "payment": payment(amount="0.50")}
        for door in doors:
            await exhaust(door, stack)
            await assert_stays_limited(partial(door.call, "PayOrder", paying, token=stack.token()))
            assert "OK" == (await door.call("GetOrder", {"orderId": theirs.body["id"]}, token=stack.token())).code


async def test_an_address_is_not_what_the_caller_says(stack: Stack, tmp_path: Path) -> None:
    """K7: without a proxy in front, x-forwarded-for says nothing."""
    async with limiting(stack, tmp_path) as (rest, _):
        await exhaust(rest, stack)
        for claimed in (STRANGER, "127.0.0.2", "garbage", ", ".join([STRANGER] * 100)):
            await assert_stays_limited(partial(order_from, rest, stack, claimed))


async def test_behind_a_proxy_an_address_is_what_the_proxy_has_seen(stack: Stack, tmp_path: Path) -> None:
    """K7: the proxy adds what it has seen to what the caller has sent."""
    async with limiting(stack, tmp_path, trusted_proxies=1) as (rest, _):
        await assert_is_limited_after(10 * AT_MOST, partial(order_from, rest, stack, NEIGHBOURS[0]))
        await assert_stays_limited(partial(order_from, rest, stack, NEIGHBOURS[1]))
        await assert_stays_limited(partial(order_from, rest, stack, f"{STRANGER}, {NEIGHBOURS[0]}"))
        assert "OK" == (await order_from(rest, stack, STRANGER)).code


async def assert_stays_limited(call: Callable[[], Awaitable[Answer]]) -> None:
    """However slow this machine is: one may have become allowed since, but not several."""
    await assert_is_limited_after(AT_MOST - 1, call)


async def assert_is_limited_after(calls_max: int, call: Callable[[], Awaitable[Answer]]) -> None:
    for _ in range(calls_max):
        answer = await call()
        if answer.reason == "RATE_LIMITED":
            break
    assert_limited(answer)


async def exhaust(door: Door, stack: Stack) -> None:
    await assert_is_limited_after(10 * AT_MOST, lambda: door.call("CreateOrder", CHEAP, token=stack.token()))


async def order_from(rest: RestDoor, stack: Stack, forwarded_for: str) -> Answer:
    body = json.dumps(CHEAP).encode()
    return await rest.send(
        "POST", "/orders", token=stack.token(), data=body, headers={"x-forwarded-for": forwarded_for}
    )
