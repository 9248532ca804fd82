"""Every deliberately broken version of the flow is found out, by name; the flow as it is is not."""

import asyncio
import os
from collections.abc import AsyncIterator
from random import SystemRandom

import pytest

from harness.campaign import new_sqlite
from harness.checker import Finding
from harness.launcher import launcher
from harness.trial import find_out, is_found_out, trial
from harness.variants import AS_IT_IS, VARIANTS

SEED = int(os.environ.get("PAYORDER_SEED", SystemRandom().randrange(2**32)))
AT_ONCE = 4
Trials = dict[str, "asyncio.Task[list[Finding]]"]


@pytest.fixture(scope="module")
async def trials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trials]:
    """The trials that this session will ask for, several at a time: most of a trial is waiting."""
    print(f"seed {SEED}")
    wanted = [item.callspec.params["variant"] for item in request.session.items if _is_trial(item)]
    slots = asyncio.Semaphore(AT_ONCE)
    async with launcher(tmp_path_factory.mktemp("trials")) as shared:

        async def one(variant: str) -> list[Finding]:
            folder = tmp_path_factory.mktemp("trial")
            async with slots:
                if variant in VARIANTS:
                    return await find_out(variant, new_sqlite, folder, SEED, shared)
                return await trial(AS_IT_IS, await new_sqlite(folder), folder, SEED, shared, variant=None)

        started = {variant: asyncio.create_task(one(variant)) for variant in wanted}
        yield started
        for task in started.values():
            task.cancel()
        await asyncio.gather(*started.values(), return_exceptions=True)


def _is_trial(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and "trials" in item.fixturenames


@pytest.mark.parametrize("variant", list(VARIANTS))
async def test_the_checker_finds_it_out(trials, variant):
    findings = await trials[variant]
    assert is_found_out(variant, findings), [str(finding) for finding in findings]


@pytest.mark.parametrize("variant", ["none of them"])
async def test_the_checker_has_nothing_against_the_flow_as_it_is(trials, variant):
    # I8 asks for more patience than a trial has.
    assert [] == [str(finding) for finding in await trials[variant] if finding.invariant != "I8"]
