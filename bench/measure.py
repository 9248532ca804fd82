"""One measured run: orders are made, the load process pays them, and its answers are compared with the table.

Processor time is read when the load process stands ready and when it is done, and divided by its calls.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench import orders
from bench.load.plan import Plan, Result
from bench.meter import Meter
from bench.stage import Target

# More than any server here can pay, on two cores and for one caller.
_CALLS_PER_SECOND_MAX = 3000
_CALLS_PER_CALLER_MAX = 500
_LINE_BYTES_MAX = 1 << 20
_MEBIBYTE = 1 << 20


class Mismatch(Exception):
    """The answers and the rows disagree, or an answer was not the right one: there is nothing to report."""


@dataclass(frozen=True, slots=True)
class Figures:
    """`cpu_ms` are milliseconds of processor time for each call, by whose they are: server, postgres, envoy, load."""

    calls: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: dict[str, float]
    memory_mib: float


class Load:
    """A load process that stands ready."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.meter = Meter(process.pid)

    async def go(self) -> Result:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        return Result(**json.loads(await _line(self._process)))


@asynccontextmanager
async def loading(plan: Plan) -> AsyncIterator[Load]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES_MAX,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(asdict(plan)).encode() + b"\n")
        await _line(process)
        yield Load(process)
        process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def pay(target: Target, tokens: list[str], *, seconds: float, callers: int, **further: Any) -> Figures:
    """`further` are fields of the Plan. Raises Mismatch."""
    at_most = min(_CALLS_PER_SECOND_MAX, _CALLS_PER_CALLER_MAX * callers)
    rate = further.get("rate_per_second") or at_most
    order_ids = await orders.make(target.database_url, round(seconds * rate * 1.2) + callers + 100)
    plan = Plan(
        protocol=target.protocol,
        address=target.address,
        tokens=tokens,
        subjects=order_ids,
        seconds=seconds,
        callers=callers,
        has_keys=target.has_keys,
        **further,
    )
    figures, result = await run(target, plan)
    paid = await orders.count_paid(target.database_url, order_ids)
    if paid != result.calls:
        raise Mismatch(f"{target.name}: {result.calls} calls were answered as paid, and {paid} payments succeeded")
    return figures


async def run(target: Target, plan: Plan) -> tuple[Figures, Result]:
    async with loading(plan) as load:
        meters = {**target.meters, "load": load.meter}
        before = {name: meter.cpu_seconds() for name, meter in meters.items()}
        result = await load.go()
        used = {name: meter.cpu_seconds() - before[name] for name, meter in meters.items()}
        figures = Figures(
            calls=result.timed_calls,
            per_second=result.per_second,
            p50_ms=result.p50_ms,
            p99_ms=result.p99_ms,
            cpu_ms={name: seconds / result.timed_calls * 1000 for name, seconds in used.items()},
            memory_mib=target.meters["server"].memory_bytes() / _MEBIBYTE,
        )
    return figures, result


def middle(runs: Iterable[Figures]) -> Figures:
    """The median of each figure by itself."""
    runs = list(runs)
    return Figures(
        calls=sum(run.calls for run in runs),
        per_second=median(run.per_second for run in runs),
        p50_ms=median(run.p50_ms for run in runs),
        p99_ms=median(run.p99_ms for run in runs),
        cpu_ms={name: median(run.cpu_ms[name] for run in runs) for name in runs[0].cpu_ms},
        memory_mib=median(run.memory_mib for run in runs),
    )


async def _line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise Mismatch("the load process gave up; its own words are above")
    return line
