"""A small, seeded slice of `./dev crash`: PAYORDER_CRASH_KILLS and PAYORDER_CRASH_PAUSES make it larger.

Two campaigns run at a time: half of each is waiting for the leases of killed processes to end. More would slow the
services so much that few came to the point at which they are to be killed.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import SystemRandom

import pytest

from harness.campaign import Result, Wanted, campaign, new_postgresql, new_sqlite, print_result
from harness.client import SENT
from harness.launcher import launcher
from harness.stage import Plan
from payorder.local.postgres import EmbeddedPostgres
from support.ahead import started_ahead
from support.leaks import Search, leaks_below

KILLS = int(os.environ.get("PAYORDER_CRASH_KILLS", "20"))
PAUSES = int(os.environ.get("PAYORDER_CRASH_PAUSES", "3"))
SEED = int(os.environ.get("PAYORDER_SEED", SystemRandom().randrange(2**32)))
CAMPAIGNS = {
    "sqlite": Wanted(KILLS, PAUSES, replicas=3, at_once=24),
    "postgresql": Wanted(KILLS, PAUSES, replicas=3, at_once=24),
    "postgresql behind a wire": Wanted(KILLS // 3, 0, replicas=3, at_once=24, cuts=KILLS // 2),
}
CAMPAIGNS_AT_ONCE = 2
Campaigns = Mapping[str, "asyncio.Task[tuple[Result, Path]]"]


@pytest.fixture(scope="module")
async def campaigns(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres
) -> AsyncIterator[Campaigns]:
    """The result of each, and the folder with its records."""
    async with launcher(tmp_path_factory.mktemp("campaigns")) as shared:

        async def run(name: str) -> tuple[Result, Path]:
            folder = tmp_path_factory.mktemp("campaign")
            url = await new_sqlite(folder) if name == "sqlite" else await new_postgresql(postgres)
            plan = Plan(SEED, url, folder, settings={"DRAIN_SECONDS": "1"})
            return await campaign(plan, CAMPAIGNS[name], shared=shared), folder

        async with started_ahead(request, "name", run, at_once=CAMPAIGNS_AT_ONCE) as started:
            yield started


@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
async def test_neither_kills_nor_pauses_cost_money(campaigns, name):
    result, folder = await campaigns[name]
    print_result(result)
    assert [] == result.findings, "\n".join(map(str, result.findings))
    assert KILLS <= result.tally.kills.total(), f"only {result.tally}"
    assert PAUSES <= result.tally.pauses.total(), f"only {result.tally}"
    leaks = leaks_below(folder, Search({card.number for card in SENT}, {card.cvc for card in SENT}))
    assert {} == leaks, f"{leaks} below {folder}"


@pytest.mark.parametrize("name", ["postgresql behind a wire"])
async def test_a_wire_to_the_database_that_breaks_costs_no_money(campaigns, name):
    result, _ = await campaigns[name]
    print_result(result)
    assert [] == result.findings, "\n".join(map(str, result.findings))
