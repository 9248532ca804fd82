"""Two worker processes against one, on one port."""

import asyncio
import os
import sys
from dataclasses import asdict

from bench.measure import Figures, middle, pay
from bench.report import Goal, Section
from bench.sizes import Sizes
from bench.stage import Stage

_WHAT = "throughput of two workers against one"
_GOAL = 1.8
# The kernel deals connections out by chance: with few of them one worker would get most.
_CONNECTIONS = 32


async def measure(stage: Stage, sizes: Sizes) -> list[Section]:
    if not await _can_have_workers():
        goal = Goal(_WHAT, None, "at least", _GOAL, "x", "`payorder serve` has no --workers")
        return [Section("workers", "Workers", "Not measured.", ("workers",), (), [goal])]
    targets = [
        await stage.payorder(f"{count} worker(s)", await stage.postgres_url(f"workers_{count}"), workers=count)
        for count in (1, 2)
    ]
    runs: dict[str, list[Figures]] = {target.name: [] for target in targets}
    for _ in range(sizes.repeats):
        for target in targets:
            figures = await pay(
                target, stage.tokens(target), seconds=sizes.seconds, callers=sizes.callers, connections=_CONNECTIONS
            )
            print(f"  {target.name}: {figures.per_second:.0f}/s", flush=True)
            runs[target.name].append(figures)
    return [_section({name: middle(each) for name, each in runs.items()}, sizes)]


def _section(found: dict[str, Figures], sizes: Sizes) -> Section:
    one, two = found.values()
    cores = os.cpu_count() or 1
    possible = cores * 1000 / sum(two.cpu_ms.values()) / one.per_second
    remark = f"{cores} cores, shared with PostgreSQL and the load, have room for {possible:.2f}x"
    return Section(
        name="workers",
        title="Workers",
        about=f"{sizes.callers} callers on {_CONNECTIONS} connections. Processor latency 0.",
        columns=("workers", "calls/s", "p50 ms", "p99 ms", "server CPU ms", "PostgreSQL CPU ms", "memory MiB"),
        rows=[_row(name, each) for name, each in found.items()],
        goals=[Goal(_WHAT, two.per_second / one.per_second, "at least", _GOAL, "x", remark)],
        data={name: asdict(each) for name, each in found.items()},
    )


def _row(name: str, figures: Figures) -> list[str]:
    cpu = [f"{figures.cpu_ms[whose]:.2f}" for whose in ("server", "postgres")]
    times = [f"{figures.per_second:.0f}", f"{figures.p50_ms:.1f}", f"{figures.p99_ms:.1f}"]
    return [name, *times, *cpu, f"{figures.memory_mib:.0f}"]


async def _can_have_workers() -> bool:
    command = (sys.executable, "-m", "payorder", "serve", "--help")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return b"--workers" in output
