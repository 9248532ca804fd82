"""A small, seeded slice of `./dev deliver`: PAYORDER_DELIVER_EVENTS and PAYORDER_DELIVER_KILLS make it larger."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from random import SystemRandom

import pytest

from harness.campaign import new_postgresql, new_sqlite
from harness.launcher import Launcher, launcher
from harness.relay.campaign import Plan, Result, campaign, print_result
from harness.relay.variants import VARIANTS
from payorder.local.postgres import EmbeddedPostgres

EVENTS = int(os.environ.get("PAYORDER_DELIVER_EVENTS", "300"))
KILLS = int(os.environ.get("PAYORDER_DELIVER_KILLS", "6"))
SEED = int(os.environ.get("PAYORDER_SEED", SystemRandom().randrange(2**32)))


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Launcher]:
    async with launcher(tmp_path_factory.mktemp("deliveries")) as launched:
        yield launched


async def run(
    engine: str, folder: Path, server: EmbeddedPostgres, shared: Launcher, *, variant: str | None = None
) -> Result:
    url = await new_sqlite(folder) if engine == "sqlite" else await new_postgresql(server)
    plan = Plan(
        seed=SEED,
        database_url=url,
        folder=folder,
        events=EVENTS,
        kills=KILLS,
        kill_seconds=0.6,
        orders_at_once=8,
        rest_seconds=0.3,
        variant=variant,
        patience_seconds=5 if variant else 120,
    )
    result = await campaign(plan, shared)
    print_result(result)
    return result


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_no_event_is_lost_however_often_dispatchers_are_killed(engine, tmp_path, postgres, shared):
    result = await run(engine, tmp_path, postgres, shared)
    assert [] == result.findings, "\n".join(map(str, result.findings))
    assert EVENTS <= result.events
    assert KILLS <= result.kills
    assert EVENTS <= result.states["delivered"] + result.states["dead"]


@pytest.mark.parametrize("variant", VARIANTS)
async def test_the_checker_finds_out_what_is_broken(variant, tmp_path, postgres, shared):
    result = await run("postgresql", tmp_path, postgres, shared, variant=variant)
    assert VARIANTS[variant][1] in {finding.kind for finding in result.findings}
