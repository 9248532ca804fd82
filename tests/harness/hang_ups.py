"""Calls that their clients leave after a moment: nothing may be lost or torn by that."""

import asyncio
from contextlib import AsyncExitStack
from random import Random

from harness.client import Card, Client, Door
from harness.stage import Stage
from harness.transcript import Call

_AT_ONCE = 25


async def hang_up(on: Stage, *, calls: int, replicas: int, patience_seconds: float) -> int:
    """Leave that many payments after 0 to 200 ms, each of an order of its own. Returns how many were left in time."""
    services = [await on.start_service() for _ in range(replicas)]
    doors = [Door(service.address) for service in services]
    client = on.client()
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> Call:
        async with slots:
            random = on.random(f"call {number}")
            return await _pay_and_leave(on, client, random.choice(doors), random)

    async with AsyncExitStack() as channels:
        for door in doors:
            await channels.enter_async_context(door.channel)
        left = await asyncio.gather(*(one(number) for number in range(calls)))
        await _wait_until_settled(on, patience_seconds)
    return sum(call.code in ("HUNG_UP", "CANCELLED") for call in left)


async def _pay_and_leave(on: Stage, client: Client, door: Door, random: Random) -> Call:
    order, amount = await on.place(client, door)
    key = f"hang up {random.getrandbits(32):08x}" if random.random() < 0.5 else None
    return await client.pay(
        door, order, amount, Card.new(random), key=key, hang_up_after_seconds=random.uniform(0.0, 0.2)
    )


async def _wait_until_settled(on: Stage, patience_seconds: float) -> None:
    for _ in range(round(patience_seconds / 0.2)):
        if await on.is_quiet():
            return
        await asyncio.sleep(0.2)
