"""A storm: a hundred callers pay one order at the same moment."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from harness.client import Card, Client, Door
from harness.stage import Stage
from harness.transcript import Call

CALLERS = 100


@dataclass(frozen=True, slots=True)
class Storm:
    """How it ended: the amount stands for the order."""

    order: str
    amount_minor: int
    calls: Sequence[Call]

    @property
    def answers(self) -> Counter[str]:
        return Counter(call.reason or call.status or call.code for call in self.calls)


async def storm(on: Stage, client: Client, doors: Sequence[Door], keys: str, random: Random) -> Storm:
    """`keys`: "same" for one key and card, "other" for a key and a card each, "none" for one card without a key."""
    order, amount = await on.place(client, doors[0])
    card = Card.new(random)
    key = f"{keys} {random.getrandbits(32):08x}"
    barrier = asyncio.Barrier(CALLERS)

    async def pay(number: int) -> Call:
        own_key = {"same": key, "other": f"{key} {number}", "none": None}[keys]
        own_card = Card.new(random) if keys == "other" else card
        await barrier.wait()
        return await client.pay(doors[number % len(doors)], order, amount, own_card, key=own_key, timeout_seconds=15)

    return Storm(order, amount, await asyncio.gather(*(pay(number) for number in range(CALLERS))))
