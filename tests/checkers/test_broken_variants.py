"""Every deliberately broken version of the flow is found out, by name; the flow as it is is not."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import SystemRandom

import pytest

from harness.campaign import new_postgresql, new_sqlite
from harness.checker import Finding
from harness.launcher import launcher
from harness.trial import find_out, is_found_out, trial
from harness.variants import AS_IT_IS, VARIANTS
from payorder.local.postgres import EmbeddedPostgres
from support.ahead import started_ahead

SEED = int(os.environ.get("PAYORDER_SEED", SystemRandom().randrange(2**32)))
AT_ONCE = 8
Trials = Mapping[str, "asyncio.Task[list[Finding]]"]


@pytest.fixture(scope="module")
async def trials(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres
) -> AsyncIterator[Trials]:
    print(f"seed {SEED}")

    async def database(engine: str, folder: Path) -> str:
        return await new_sqlite(folder) if engine == "sqlite" else await new_postgresql(postgres)

    async with launcher(tmp_path_factory.mktemp("trials")) as shared:

        async def run(variant: str) -> list[Finding]:
            folder = tmp_path_factory.mktemp("trial")
            if variant in VARIANTS:
                return await find_out(variant, database, folder, SEED, shared)
            return await trial(AS_IT_IS, await new_sqlite(folder), folder, SEED, shared, variant=None)

        async with started_ahead(request, "variant", run, at_once=AT_ONCE) as started:
            yield started


@pytest.mark.parametrize("variant", list(VARIANTS))
async def test_the_checker_finds_it_out(trials, variant):
    findings = await trials[variant]
    assert is_found_out(variant, findings), [str(finding) for finding in findings]


@pytest.mark.parametrize("variant", ["none of them"])
async def test_the_checker_has_nothing_against_the_flow_as_it_is(trials, variant):
    # I8 asks for more patience than a trial has.
    assert [] == [str(finding) for finding in await trials[variant] if finding.invariant != "I8"]
