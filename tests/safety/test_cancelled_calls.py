"""Callers that leave after 0 to 200 ms: nothing lost, nothing torn. PAYORDER_CANCELLED_CALLS is how many of them.

Reconciliation is too far off to help: what a caller leaves behind, the service itself has to finish.
"""

import os
from random import SystemRandom

import pytest

from harness.campaign import new_postgresql, new_sqlite
from harness.hang_ups import hang_up
from harness.stage import Plan, stage

CALLS = int(os.environ.get("PAYORDER_CANCELLED_CALLS", "200"))
SEED = int(os.environ.get("PAYORDER_SEED", SystemRandom().randrange(2**32)))
SETTINGS = {"CHARGE_TIMEOUT_SECONDS": "5", "RECONCILE_AFTER_SECONDS": "120"}
CHARGES = {"ok": 60, "decline": 10, "race": 30}


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_caller_who_leaves_changes_nothing(engine, tmp_path, postgres):
    print(f"seed {SEED}")
    url = await new_sqlite(tmp_path) if engine == "sqlite" else await new_postgresql(postgres)
    async with stage(Plan(SEED, url, tmp_path, settings=SETTINGS, charges=CHARGES)) as on:
        left = await hang_up(on, calls=CALLS, replicas=2, patience_seconds=20)
        assert left > CALLS / 4
        assert [] == [str(finding) for finding in await on.findings()]
