"""Customers who want one order paid, and will do anything for it: repeat, race themselves, hang up, cancel."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from random import Random
from uuid import UUID

from harness.client import Card, Client
from harness.cluster import Doors
from harness.stage import Stage
from harness.transcript import Call

ATTEMPTS_MAX = 3
# What no right request is answered; the checker reports them.
MALFORMED_REASONS = ("IDEMPOTENCY_KEY_REUSED", "BAD_REQUEST", "INVALID_FIELDS", "ORDER_NOT_FOUND")
STORIES = {
    "alone": 30,
    "same_key": 15,
    "other_keys": 20,
    "double_click": 15,
    "mixed": 10,
    "cancels": 10,
    "returns": 5,  # paid, and cancelled only then
}


@dataclass(slots=True)
class Attempt:
    """What a caller sends, and sends again. Without a key, repeating is another attempt."""

    card: Card
    key: str | None


class Customers:
    def __init__(self, stage: Stage, doors: Doors, stories: Mapping[str, int] = STORIES) -> None:
        """`stories` are their weights."""
        self._weights = stories
        self._stage = stage
        self._doors = doors
        self._stories = count(1)
        self._clients = [stage.client(name) for name in ("alice", "bob")]
        self._patience_ends = float("inf")
        self.orders = 0

    async def run(self, at_once: int, enough: asyncio.Event, patience_seconds: float) -> None:
        """One story after the other, `at_once` at a time, until `enough`; those under way then come to their end."""
        async with asyncio.TaskGroup() as stories:
            for _ in range(at_once):
                stories.create_task(self._tell_stories(enough))
            await enough.wait()
            self._patience_ends = time.monotonic() + patience_seconds

    async def _tell_stories(self, enough: asyncio.Event) -> None:
        while not enough.is_set():
            await self.story(self._stage.random(f"story {next(self._stories)}"))

    async def story(self, random: Random) -> None:
        client = random.choice(self._clients)
        placed = await self._place(client, random)
        if placed is None:
            return
        self.orders += 1
        story = random.choices(list(self._weights), list(self._weights.values()))[0]
        callers = [self._insist(client, random, *placed, attempt) for attempt in _attempts(story, random)]
        if story == "cancels":
            callers.append(self._cancel(client, random, placed[0]))
        await asyncio.gather(*callers)
        if story == "returns":
            await self._cancel(client, random, placed[0])

    async def _place(self, client: Client, random: Random) -> tuple[str, int] | None:
        """Each try costs another amount, unless it carries a key: then it is the same order."""
        key, amount = None, self._stage.new_amount()
        if random.random() < 0.5:
            key = _new_key(random)
        while not self._gives_up():
            call = await client.create(await self._doors.pick(random), amount, key=key)
            if call.code == "OK":
                if key is not None and random.random() < 0.1:
                    await client.create(await self._doors.pick(random), amount, key=key)
                return call.order, amount
            if call.reason in MALFORMED_REASONS:
                return None
            if key is None:
                amount = self._stage.new_amount()
            await asyncio.sleep(random.uniform(0.01, 0.1))
        return None

    async def _insist(self, client: Client, random: Random, order: str, amount: int, attempt: Attempt) -> None:
        """Call until a definite answer; after a failed attempt begin another, a few times."""
        for _ in range(ATTEMPTS_MAX):
            end = await self._until_definite(client, random, order, amount, attempt)
            if end is None:
                self._stage.transcript.note("gave up", order=order)
                return
            await self._try_again_afterwards(client, random, order, amount, attempt, end)
            if end.reason not in ("PAYMENT_DECLINED", "PROCESSOR_UNAVAILABLE"):
                return
            attempt = Attempt(Card.new(random), _new_key(random) if attempt.key else None)

    async def _until_definite(
        self, client: Client, random: Random, order: str, amount: int, attempt: Attempt
    ) -> Call | None:
        while not self._gives_up():
            door = await self._doors.pick(random)
            leaves = random.uniform(0.0, 0.2) if random.random() < 0.1 else None
            timeout = random.choice((3.2, 4, 6))
            card = attempt.card
            call = await client.pay(
                door, order, amount, card, key=attempt.key, timeout_seconds=timeout, hang_up_after_seconds=leaves
            )
            if _is_definite(call):
                return call
            if call.status == "processing" and call.payment is not None and random.random() < 0.7:
                await self._watch(client, random, call.payment, order)
            await asyncio.sleep(random.uniform(0.05, 0.2) if call.reason is None else random.uniform(0.1, 0.8))
        return None

    async def _watch(self, client: Client, random: Random, payment: str, order: str) -> None:
        for _ in range(10):
            call = await client.read(await self._doors.pick(random), payment, order)
            if call.code == "OK" and call.status != "processing":
                return
            await asyncio.sleep(random.uniform(0.1, 0.8))

    async def _try_again_afterwards(
        self, client: Client, random: Random, order: str, amount: int, attempt: Attempt, end: Call
    ) -> None:
        """Repetitions that must be replays, the same key with another request, and reading what was told."""
        keeps = end.code == "OK" or end.reason in ("PAYMENT_DECLINED", "PROCESSOR_UNAVAILABLE")
        if attempt.key is not None and keeps:
            for _ in range(random.choice((0, 0, 1, 2))):
                await client.pay(await self._doors.pick(random), order, amount, attempt.card, key=attempt.key)
            if random.random() < 0.15:
                other = Card.new(random)
                await client.pay(await self._doors.pick(random), order, amount, other, key=attempt.key)
        if end.payment is not None and random.random() < 0.3:
            await client.read(await self._doors.pick(random), end.payment, order)

    async def _cancel(self, client: Client, random: Random, order: str) -> None:
        await asyncio.sleep(random.choice((0.0, random.uniform(0.0, 0.1), random.uniform(0.0, 2.0))))
        key = _new_key(random) if random.random() < 0.5 else None
        for _ in range(5):
            call = await client.cancel(await self._doors.pick(random), order, key=key)
            if call.code == "OK":
                return
            await asyncio.sleep(random.uniform(0.05, 0.6))

    def _gives_up(self) -> bool:
        return time.monotonic() > self._patience_ends


def _is_definite(call: Call) -> bool:
    return call.status == "succeeded" or call.reason in (
        "PAYMENT_DECLINED",
        "PROCESSOR_UNAVAILABLE",
        "ORDER_ALREADY_PAID",
        "ORDER_CANCELLED",
        *MALFORMED_REASONS,
    )


def _attempts(story: str, random: Random) -> list[Attempt]:
    several = range(random.choice((2, 2, 3, 4)))
    match story:
        case "alone" | "cancels" | "returns":
            return [Attempt(Card.new(random), _new_key(random) if random.random() < 0.8 else None)]
        case "same_key":
            card, key = Card.new(random), _new_key(random)
            return [Attempt(card, key) for _ in several]
        case "other_keys":
            return [Attempt(Card.new(random), _new_key(random)) for _ in several]
        case "double_click":
            card = Card.new(random)
            return [Attempt(card, None) for _ in several]
        case _:
            card, key = Card.new(random), _new_key(random)
            return [Attempt(card, key), Attempt(card, key), Attempt(card, None), Attempt(card, _new_key(random))]


def _new_key(random: Random) -> str:
    return str(UUID(int=random.getrandbits(128), version=4))
