"""`python -m harness.trial`: runs every deliberately broken variant and says whether the checker found it out."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import SystemRandom

from harness.campaign import Wanted, campaign, databases, new_sqlite
from harness.checker import Finding
from harness.hang_ups import hang_up
from harness.launcher import Launcher, launcher
from harness.stage import Plan, stage
from harness.variants import VARIANTS, Variant

# Of an engine, for a run in that folder.
NewDatabase = Callable[[str, Path], Awaitable[str]]

ROUNDS_MAX = 12
_AT_ONCE = 4
_QUIET_SECONDS_MAX = 2.0
_PATIENCE_SECONDS = 2.5
_CUSTOMERS = 12
_HANG_UPS = 60


async def find_out(name: str, database: NewDatabase, folder: Path, seed: int, shared: Launcher) -> list[Finding]:
    """What the checker says of that variant: of the first small run in which it was found out, or else of the last."""
    findings: list[Finding] = []
    for number in range(ROUNDS_MAX):
        room = folder / str(number)
        room.mkdir()
        url = await database(VARIANTS[name].engine, room)
        findings = await trial(VARIANTS[name], url, room, seed + number, shared, variant=name)
        if is_found_out(name, findings):
            break
    return findings


async def trial(
    tried: Variant, database_url: str, folder: Path, seed: int, shared: Launcher, *, variant: str | None
) -> list[Finding]:
    """What the checker says of a small run."""
    plan = Plan(
        seed=seed,
        database_url=database_url,
        folder=folder,
        variant=variant,
        settings={"DRAIN_SECONDS": "0.5", **tried.settings},
        charges=tried.charges,
        answers=tried.answers,
        quiet_seconds_max=_QUIET_SECONDS_MAX,
    )
    if tried.hangs_up:
        async with stage(plan, shared) as on:
            await hang_up(on, calls=_HANG_UPS, replicas=1, patience_seconds=_PATIENCE_SECONDS)
            return await on.findings()
    wanted = Wanted(
        kills=tried.kills,
        pauses=tried.pauses,
        replicas=2,
        at_once=_CUSTOMERS,
        cuts=tried.cuts,
        patience_seconds=_PATIENCE_SECONDS,
        points=tried.points,
        stories=tried.stories,
    )
    return (await campaign(plan, wanted, shared=shared)).findings


def is_found_out(name: str, findings: list[Finding]) -> bool:
    return any(finding.invariant in VARIANTS[name].found_by for finding in findings)


async def run(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}", flush=True)
    slots = asyncio.Semaphore(_AT_ONCE)
    with tempfile.TemporaryDirectory(prefix="payorder-trial-") as name:
        async with databases("postgresql", Path(name)) as new_on_server, launcher(Path(name)) as shared:

            async def database(engine: str, folder: Path) -> str:
                return await (new_sqlite if engine == "sqlite" else new_on_server)(folder)

            async def one(index: int, variant: str) -> bool:
                folder = Path(name) / str(index)
                folder.mkdir()
                async with slots:
                    began = time.monotonic()
                    findings = await find_out(variant, database, folder, options.seed, shared)
                found = is_found_out(variant, findings)
                kinds = Counter(f"{finding.invariant} {finding.kind}" for finding in findings)
                said = ", ".join(f"{kind} ({number})" for kind, number in kinds.most_common())
                verdict = "found" if found else "NOT FOUND"
                print(f"{verdict:9} {variant:50} {time.monotonic() - began:5.1f} s  {said}", flush=True)
                return found

            chosen = options.variants or list(VARIANTS)
            async with asyncio.TaskGroup() as trials:
                tasks = [trials.create_task(one(index, variant)) for index, variant in enumerate(chosen)]
    found = [task.result() for task in tasks]
    print(f"{sum(found)} of {len(found)} variants found out")
    return 0 if all(found) else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variants", nargs="*", help="all of them if none is named")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(2**32))
    sys.exit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
