"""A small, seeded slice of `./dev deliver`: PAYORDER_DELIVER_EVENTS and PAYORDER_DELIVER_KILLS make it larger."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from random import SystemRandom

import pytest

from conftest import NewMigrated
from harness.launcher import launcher
from harness.relay.campaign import Plan, Result, campaign, print_result
from harness.relay.variants import VARIANTS
from support.ahead import started_ahead

EVENTS = int(os.environ.get("PAYORDER_DELIVER_EVENTS", "300"))
KILLS = int(os.environ.get("PAYORDER_DELIVER_KILLS", "6"))
SEED = int(os.environ.get("PAYORDER_SEED", SystemRandom().randrange(2**32)))


AT_ONCE = 3
Campaigns = Mapping[str, "asyncio.Task[Result]"]


@pytest.fixture(scope="module")
async def campaigns(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_migrated: NewMigrated
) -> AsyncIterator[Campaigns]:
    """The result of each, by its engine, or by what is broken in it."""
    async with launcher(tmp_path_factory.mktemp("deliveries")) as shared:

        async def run(name: str) -> Result:
            folder = tmp_path_factory.mktemp("deliver")
            url = await new_migrated("sqlite" if name == "sqlite" else "postgresql", folder)
            plan = Plan(
                seed=SEED,
                database_url=url,
                folder=folder,
                events=EVENTS,
                kills=KILLS,
                kill_seconds=0.6,
                # What is broken shows while events are written, so that takes longer there.
                orders_at_once=3 if name in VARIANTS else 8,
                rest_seconds=0.3,
                variant=name if name in VARIANTS else None,
                patience_seconds=5 if name in VARIANTS else 120,
            )
            return await campaign(plan, shared)

        async with started_ahead(request, "name", run, at_once=AT_ONCE) as started:
            yield started


@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
async def test_no_event_is_lost_however_often_dispatchers_are_killed(campaigns, name):
    result = await campaigns[name]
    print_result(result)
    assert [] == result.findings, "\n".join(map(str, result.findings))
    assert EVENTS <= result.events
    assert KILLS <= result.kills
    assert EVENTS <= result.states["delivered"] + result.states["dead"]


@pytest.mark.parametrize("name", VARIANTS)
async def test_the_checker_finds_out_what_is_broken(campaigns, name):
    result = await campaigns[name]
    print_result(result)
    assert VARIANTS[name][1] in {finding.kind for finding in result.findings}
