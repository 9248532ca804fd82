"""A hundred callers at once, again and again: one charge. PAYORDER_STORM_ROUNDS says how often, of each kind."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import SystemRandom

import pytest

from harness.campaign import new_postgresql, new_sqlite
from harness.client import Client, Door
from harness.evidence import Ledger
from harness.stage import Plan, Stage, stage
from harness.storm import Storm, storm
from payorder.local.postgres import EmbeddedPostgres
from payorder.local.supervisor import Supervisor
from payorder.local.up import Up
from support.stack import _envoy, free_port

ROUNDS = int(os.environ.get("PAYORDER_STORM_ROUNDS", "1"))
SEED = int(os.environ.get("PAYORDER_SEED", SystemRandom().randrange(2**32)))
REPLICAS = 3
# An answer takes its time, so that the others come while the first is being made.
CHARGES = {"ok": 50, "race": 50}
# So that what a killed process leaves open is not left for long.
SOON = {"CHARGE_TIMEOUT_SECONDS": "1", "RECONCILE_AFTER_SECONDS": "1.5"}
EXPECTED_ANSWERS = {"succeeded", "PAYMENT_IN_PROGRESS", "ORDER_ALREADY_PAID", "BUSY"}
# What a caller of Envoy would send to have one call made several times.
MULTIPLYING = (
    ("x-envoy-retry-on", "5xx,reset,retriable-4xx,retriable-status-codes"),
    ("x-envoy-retry-grpc-on", "cancelled,deadline-exceeded,internal,resource-exhausted,unavailable"),
    ("x-envoy-max-retries", "5"),
    ("x-envoy-hedge-on-per-try-timeout", "true"),
    ("x-envoy-upstream-rq-per-try-timeout-ms", "20"),
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
async def weather(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres
) -> AsyncIterator[tuple[Stage, list[Door]]]:
    """A stage with three replicas, and a door to each. At its end the checker has seen every storm."""
    print(f"seed {SEED}")
    folder = tmp_path_factory.mktemp(f"storm_{request.param}")
    url = await new_sqlite(folder) if request.param == "sqlite" else await new_postgresql(postgres)
    settings = {"CHARGE_TIMEOUT_SECONDS": "5", "ANSWER_WITHIN_SECONDS": "8", "RECONCILE_AFTER_SECONDS": "10"}
    async with stage(Plan(SEED, url, folder, settings=settings, charges=CHARGES)) as on:
        services = [await on.start_service(LISTEN=f"127.0.0.1:{free_port()}") for _ in range(REPLICAS)]
        doors = [Door(service.address) for service in services]
        async with AsyncExitStack() as channels:
            for door in doors:
                await channels.enter_async_context(door.channel)
            yield on, doors
            await on.wait_until_quiet()
        assert [] == [str(finding) for finding in await on.findings()]


@pytest.mark.parametrize("replicas", [1, REPLICAS])
@pytest.mark.parametrize("keys", ["same", "other", "none"])
async def test_a_hundred_callers_at_once_are_charged_once(weather, keys, replicas):
    on, doors = weather
    random = on.random(f"storm {keys} {replicas}")
    for _ in range(ROUNDS):
        _assert_charged_once(on, await storm(on, on.client(), doors[:replicas], keys, random))


@pytest.mark.parametrize("keys", ["same", "none"])
async def test_envoy_cannot_be_made_to_multiply_a_call(weather, keys, tmp_path):
    on, doors = weather
    random = on.random(f"storm {keys}")
    async with through_envoy(on, doors[0], tmp_path) as (client, door):
        for _ in range(ROUNDS):
            _assert_charged_once(on, await storm(on, client, [door], keys, random))


@asynccontextmanager
async def through_envoy(on: Stage, behind: Door, folder: Path) -> AsyncIterator[tuple[Client, Door]]:
    """A client that asks Envoy for retries and hedging, and the door to an Envoy before that replica."""
    wanted = Up(free_port(), behind.port, folder, on.plan.database_url, with_postgres=False)
    wanted.logs.mkdir()
    supervisor = Supervisor()
    try:
        await supervisor.start(_envoy(wanted, on.issuer))
        door = Door(wanted.address)
        async with door.channel:
            yield on.client("alice", MULTIPLYING), door
    finally:
        await supervisor.stop()


def _assert_charged_once(on: Stage, made: Storm) -> None:
    assert made.answers.keys() <= EXPECTED_ANSWERS, made.answers
    assert made.answers["succeeded"] >= 1
    ledger = Ledger.read(on.ledger)
    assert 1 == sum(charge.amount_minor == made.amount_minor for charge in ledger.charges)
    assert 1 == sum(request["amount_minor"] == made.amount_minor for request in ledger.requests)
    first = [call for call in made.calls if call.status == "succeeded" and not call.replayed]
    assert 1 == len(first)


async def test_a_service_that_dies_behind_envoy_takes_no_second_charge(weather, tmp_path):
    """Envoy repeats a write only when it certainly never arrived; a killed upstream is not that."""
    on, _ = weather
    service = await on.start_service(LISTEN=f"127.0.0.1:{free_port()}", **SOON)
    behind = Door(service.address)
    async with behind.channel, through_envoy(on, behind, tmp_path) as (client, door):
        storming = asyncio.create_task(storm(on, client, [door], "same", on.random("storm")))
        await asyncio.sleep(0.25)
        on.kill(service)
        made = await storming
        again = await on.start_service(LISTEN=service.address, **SOON)
        await on.wait_until_quiet()
        on.kill(again)
    ledger = Ledger.read(on.ledger)
    assert 1 >= sum(charge.amount_minor == made.amount_minor for charge in ledger.charges)
