"""`python -m harness.campaign`: pays orders while the service is killed and stopped, then lets the checker look.

Prints the seed, its progress and a table; the exit code is 1 on any finding. A seed replays the choices of a run:
behaviours for the same keys, points, moments and stories; how processes interleave is the machine's.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import SystemRandom
from uuid import uuid4

import asyncpg

from harness import checker
from harness.checker import Finding
from harness.cluster import Cluster, Tally, open_doors
from harness.customers import STORIES, Customers
from harness.evidence import Ledger, read_lines
from harness.launcher import Launcher
from harness.stage import Plan, Stage, stage
from harness.wire import Wire, break_now_and_then, wired
from payorder.local.postgres import EmbeddedPostgres

_SAMPLE_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much of what: `at_once` customers, `replicas` processes. `patience_seconds` is how long the last may take."""

    kills: int
    pauses: int
    replicas: int
    at_once: int = 40
    patience_seconds: float = _PATIENCE_SECONDS
    points: tuple[str, ...] = ()
    stories: Mapping[str, int] = field(default_factory=lambda: STORIES)
    # How often the wire to PostgreSQL breaks.
    cuts: int = 0


@dataclass(slots=True)
class Result:
    seed: int
    tally: Tally
    orders: int = 0
    charges: int = 0
    seconds: float = 0.0
    quiet_seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    cuts: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)

    def number(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)

    @property
    def table(self) -> Mapping[str, object]:
        counted = {
            "gross doubles": self.number("gross double"),
            "net doubles": self.number("net double"),
            "lost": self.number("lost"),
            "stuck": self.number("stuck") + self.number("unanswered"),
            "differing replays": self.number("differing replay"),
            "leaks": self.number("leak"),
        }
        return {
            "orders": self.orders,
            "kills": self.tally.kills.total(),
            "pauses": self.tally.pauses.total(),
            "charges": self.charges,
            **counted,
            "other findings": len(self.findings) - sum(counted.values()),
        }


async def campaign(
    plan: Plan, wanted: Wanted, say: Callable[[str], None] = lambda _: None, shared: Launcher | None = None
) -> Result:
    if not wanted.cuts:
        return await _campaign(plan, wanted, say, shared, None)
    async with wired(plan.database_url) as (wire, url):
        return await _campaign(replace(plan, service_database_url=url), wanted, say, shared, wire)


async def _campaign(
    plan: Plan, wanted: Wanted, say: Callable[[str], None], shared: Launcher | None, wire: Wire | None
) -> Result:
    async with stage(plan, shared) as on, open_doors() as doors:
        customers = Customers(on, doors, wanted.stories)
        cluster = Cluster(
            on, doors, replicas=wanted.replicas, kills=wanted.kills, pauses=wanted.pauses, points=wanted.points
        )
        result = Result(plan.seed, cluster.tally)
        async with _watched(on, cluster, customers, result.findings, say):
            began, enough = time.monotonic(), asyncio.Event()
            async with asyncio.TaskGroup() as together:
                together.create_task(customers.run(wanted.at_once, enough, wanted.patience_seconds))
                async with asyncio.TaskGroup() as troubles:
                    troubles.create_task(cluster.run())
                    if wire is not None:
                        troubles.create_task(break_now_and_then(wire, on.random("wire"), wanted.cuts, result.cuts))
                enough.set()
            result.seconds = time.monotonic() - began
            result.quiet_seconds = await on.wait_until_quiet()
        await cluster.stop()
        result.orders = customers.orders
        result.charges = len(Ledger.read(on.ledger).charges)
        result.findings += await on.findings()
        calls = read_lines(plan.folder / "transcript.jsonl")
        result.answers.update(_answer_of(call) for call in calls if call.get("method") == "PayOrder")
        return result


@asynccontextmanager
async def _watched(
    on: Stage, cluster: Cluster, customers: Customers, early: list[Finding], say: Callable[[str], None]
) -> AsyncIterator[None]:
    watching = asyncio.create_task(_watch(on, cluster, customers, early, say))
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def _watch(
    on: Stage, cluster: Cluster, customers: Customers, early: list[Finding], say: Callable[[str], None]
) -> None:
    """What must hold at every moment, looked at in the middle of the run; and a line of progress now and then."""
    said = time.monotonic()
    while True:
        await asyncio.sleep(_SAMPLE_SECONDS)
        if not early:
            early.extend(await checker.over_refunded_now(on.plan.database_url))
        if time.monotonic() > said + 10:
            said = time.monotonic()
            tally = cluster.tally
            say(f"{customers.orders} orders, {tally.kills.total()} kills, {tally.pauses.total()} pauses")


def _answer_of(call: Mapping[str, object]) -> str:
    return str(call["reason"] or call["status"] or call["code"])


def print_result(result: Result) -> None:
    write = sys.stdout.write
    for kind, finding in sorted(_first_of_each(result.findings).items()):
        number = result.number(kind)
        write(f"FINDING {finding}" + (f" (and {number - 1} more)" if number > 1 else "") + "\n")
    write(f"answers to PayOrder: {dict(result.answers.most_common())}\n")
    write(f"kills by point: {dict(result.tally.kills.most_common())}\n")
    write(f"pauses by point: {dict(result.tally.pauses.most_common())}\n")
    if result.cuts:
        write(f"the wire to the database: {dict(result.cuts)}\n")
    starts = sorted(result.tally.start_seconds)
    rate = result.tally.kills.total() / result.seconds
    write(f"{result.seconds:.0f} s, {rate:.1f} kills/s, median start {starts[len(starts) // 2] * 1000:.0f} ms, ")
    write(f"quiet after {result.quiet_seconds:.1f} s\n")
    write("| " + " | ".join(["seed", *result.table]) + " |\n")
    write("|" + "---|" * (len(result.table) + 1) + "\n")
    write("| " + " | ".join(map(str, [result.seed, *result.table.values()])) + " |\n")


def _first_of_each(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.kind: finding for finding in reversed(findings)}


@asynccontextmanager
async def databases(engine: str, folder: Path) -> AsyncIterator[Callable[[Path], Awaitable[str]]]:
    """Makes empty ones; for PostgreSQL on a server of its own, which ends with the block."""
    if engine == "sqlite":
        yield new_sqlite
        return
    from support.stack import running_postgres  # noqa: PLC0415 - only where it is asked for

    async with running_postgres(folder / "postgres", max_connections="500") as server:

        async def new(_folder: Path) -> str:
            return await new_postgresql(server)

        yield new


async def new_sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'payorder.db'}"


async def new_postgresql(server: EmbeddedPostgres) -> str:
    name = f"harness_{uuid4().hex}"
    connection = await asyncpg.connect(server.url())
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    return server.url(name)


async def run(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}, {options.engine}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="payorder-crash-"))
    async with databases(options.engine, folder) as database:
        url = await database(folder)
        plan = Plan(seed=options.seed, database_url=url, folder=folder, variant=options.variant)
        wanted = Wanted(options.kills, options.pauses, options.replicas, options.at_once, cuts=options.cuts)
        result = await campaign(plan, wanted, say=lambda line: print(line, flush=True))
        print_result(result)
    if result.findings:
        print(f"the records are in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--pauses", type=int, default=50)
    parser.add_argument("--replicas", type=int, choices=range(1, 5), default=3)
    parser.add_argument("--at-once", type=int, default=40, help="customers at a time")
    parser.add_argument("--cuts", type=int, default=0, help="how often the wire to PostgreSQL breaks")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(2**32))
    parser.add_argument("--variant", help="a deliberately broken version of the flow, by name: it must be found out")
    options = parser.parse_args()
    if options.cuts and options.engine == "sqlite":
        parser.error("--cuts needs --engine postgresql: SQLite has no wire")
    sys.exit(asyncio.run(run(options)))


if __name__ == "__main__":
    main()
