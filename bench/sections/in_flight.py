"""Many payments at once in one process, while the processor takes its time."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import asyncpg

from bench.measure import Figures, pay
from bench.report import Goal, Section
from bench.sizes import Sizes
from bench.stage import Stage, Target

# The queue of so many callers is longer than the waits that the defaults allow; refusals would be all that is measured.
_PATIENCE = {
    "BACKLOG_MAX": "4096",
    "DATABASE_POOL_TIMEOUT_SECONDS": "10",
    "SEND_WITHIN_SECONDS": "10",
    "ANSWER_WITHIN_SECONDS": "60",
}
# So few callers that less than a thousand calls wait to be begun: beyond, gRPC turns calls away. (To hold two thousand
# payments, each for one second, takes two thousand calls a second.)
_CALLERS_AT_ONCE, _CALLERS_FAST, _FAST_SECONDS, _SLOW_SECONDS = 32, 1000, 1, 8
_SAMPLE_SECONDS = 0.1
_KIBIBYTE = 1024
_COLUMNS = (
    "processor latency s",
    "callers",
    "calls/s",
    "p50 s",
    "p99 s",
    "most open at once",
    "server CPU ms",
    "KiB for each caller",
)  # fmt: skip - a table


@dataclass(slots=True)
class Most:
    """The most that was seen, and what the process had before."""

    callers: int
    memory_before: int
    memory: int = 0
    open_payments: int = 0

    @property
    def kib_each(self) -> float:
        return (self.memory - self.memory_before) / self.callers / _KIBIBYTE


async def measure(stage: Stage, sizes: Sizes) -> list[Section]:
    found = {
        latency: await _with_latency(stage, sizes, latency, callers)
        for latency, callers in (
            (0, _CALLERS_AT_ONCE),
            (_FAST_SECONDS, _CALLERS_FAST),
            (_SLOW_SECONDS, sizes.in_flight),
        )
    }
    return [
        Section(
            name="in_flight",
            title="Payments in flight in one process",
            about=f"Callers, each with one call at a time, begin one after another over the time that the processor "
            f"takes. Waits in the service are raised to {json.dumps(_PATIENCE)}, so that nobody is refused.",
            columns=_COLUMNS,
            rows=[_row(latency, *each) for latency, each in found.items()],
            goals=_goals(found),
            data={latency: {**asdict(figures), **asdict(most)} for latency, (figures, most) in found.items()},
        )
    ]


def _goals(found: dict[int, tuple[Figures, Most]]) -> list[Goal]:
    figures, most = found[_FAST_SECONDS]
    slow = found[_SLOW_SECONDS][1]
    # Nothing can be answered before the processor has answered once, and that is no fault of the service.
    rate = figures.calls / (figures.calls / figures.per_second - _FAST_SECONDS)
    return [
        Goal(
            "payments in flight in one process",
            slow.open_payments,
            "at least",
            2000,
            "",
            f"claimed and not settled, latency {_SLOW_SECONDS} s; latency {_FAST_SECONDS} s: {most.open_payments:,}",
        ),
        Goal("memory of each of them", slow.kib_each, "at most", 40, " KiB", f"latency {_SLOW_SECONDS} s"),
        Goal(
            "throughput with a processor that takes 1 s against 0 s",
            rate / found[0][0].per_second,
            "at least",
            0.9,
            "x",
            f"{_CALLERS_FAST:,} callers against {_CALLERS_AT_ONCE}; less the first second",
        ),
    ]


async def _with_latency(stage: Stage, sizes: Sizes, latency: int, callers: int) -> tuple[Figures, Most]:
    options = json.dumps({"latency_seconds": str(latency)})
    name, url = f"latency {latency} s", await stage.postgres_url(f"latency_{latency}")
    target = await stage.payorder(name, url, PROCESSOR_OPTIONS=options, **_PATIENCE)
    async with _watching(target, callers) as most:
        figures = await pay(
            target,
            stage.tokens(target),
            seconds=sizes.seconds + latency,
            callers=callers,
            ramp_seconds=latency,
            connections=8,
        )
    print(f"  {name}: {most.open_payments} open, {figures.per_second:.0f}/s", flush=True)
    return figures, most


@asynccontextmanager
async def _watching(target: Target, callers: int) -> AsyncIterator[Most]:
    server = target.meters["server"]
    most = Most(callers, memory_before=server.memory_bytes())
    connection = await asyncpg.connect(target.database_url)

    async def watch() -> None:
        while True:
            most.memory = max(most.memory, server.memory_bytes())
            count = await connection.fetchval("SELECT count(*) FROM payments WHERE status = 'processing'")
            most.open_payments = max(most.open_payments, count)
            await asyncio.sleep(_SAMPLE_SECONDS)

    watcher = asyncio.create_task(watch())
    try:
        yield most
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        await connection.close()


def _row(latency: int, figures: Figures, most: Most) -> list[str]:
    return [
        str(latency),
        f"{most.callers:,}",
        f"{figures.per_second:.0f}",
        f"{figures.p50_ms / 1000:.2f}",
        f"{figures.p99_ms / 1000:.2f}",
        f"{most.open_payments:,}",
        f"{figures.cpu_ms['server']:.2f}",
        f"{most.kib_each:.1f}",
    ]
