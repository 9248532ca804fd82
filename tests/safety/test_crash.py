"""A small, seeded slice of `./dev crash`: PAYORDER_CRASH_KILLS and PAYORDER_CRASH_PAUSES make it larger."""

import os
from random import SystemRandom

import pytest

from harness.campaign import Wanted, campaign, new_postgresql, new_sqlite, print_result
from harness.client import SENT
from harness.stage import Plan
from support.leaks import Search, leaks_below

KILLS = int(os.environ.get("PAYORDER_CRASH_KILLS", "20"))
PAUSES = int(os.environ.get("PAYORDER_CRASH_PAUSES", "3"))
SEED = int(os.environ.get("PAYORDER_SEED", SystemRandom().randrange(2**32)))


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_neither_kills_nor_pauses_cost_money(engine, tmp_path, postgres):
    url = await new_sqlite(tmp_path) if engine == "sqlite" else await new_postgresql(postgres)
    plan = Plan(SEED, url, tmp_path, settings={"DRAIN_SECONDS": "1"})
    result = await campaign(plan, Wanted(KILLS, PAUSES, replicas=3, at_once=24))
    print_result(result)
    assert [] == [str(finding) for finding in result.findings]
    assert KILLS <= result.tally.kills.total()
    assert PAUSES <= result.tally.pauses.total()
    assert {} == leaks_below(tmp_path, Search({card.number for card in SENT}, {card.cvc for card in SENT}))


async def test_a_wire_to_the_database_that_breaks_costs_no_money(tmp_path, postgres):
    plan = Plan(SEED, await new_postgresql(postgres), tmp_path, settings={"DRAIN_SECONDS": "1"})
    result = await campaign(plan, Wanted(KILLS // 3, 0, replicas=3, at_once=24, cuts=KILLS))
    print_result(result)
    assert [] == [str(finding) for finding in result.findings]
