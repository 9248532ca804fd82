"""An endpoint that answers, beside others that do not: how long its events take to it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import asyncpg

from bench import events
from bench.measure import Mismatch
from bench.receiver import HOSTILE, Kind, hostile, receiver
from bench.report import Goal, Section
from bench.sections.dispatching import DISPATCHERS, dispatchers, fail_here, fan_out_here
from bench.sizes import Sizes
from bench.stage import Stage

_P99_SECONDS = 5.0
_ORDERS_PER_SECOND = 100
_ROUND_SECONDS = 0.2
# What is not delivered so long after the last order has waited longer than it may.
_PATIENCE_SECONDS = 60
_TIMEOUT_SECONDS = 600
_HOSTILE: Mapping[Kind, str] = {
    "different": "hostile ones, each in another way",
    "late": "that answer 200 just before their time is over",
    "alternating": "that answers at once and hangs by turns",
}
_LATENCY_SECONDS = """
SELECT percentile_cont($2::float8) WITHIN GROUP (ORDER BY attempts.at - events.created_at) / 1000
FROM webhook_deliveries AS deliveries
JOIN webhook_attempts AS attempts ON attempts.delivery_id = deliveries.id AND attempts.delivered
JOIN events ON events.id = deliveries.event_id
WHERE deliveries.endpoint_id = $1
"""


@dataclass(frozen=True, slots=True)
class Beside:
    """Seconds from an event to its delivery, beside `others`."""

    others: str
    events: int
    p50_seconds: float
    p99_seconds: float

    def row(self) -> list[str]:
        return [self.others, f"{self.events:,}", f"{self.p50_seconds:.2f}", f"{self.p99_seconds:.2f}"]

    def goal(self) -> Goal:
        return Goal(f"p99 of a healthy endpoint beside {self.others}", self.p99_seconds, "at most", _P99_SECONDS, " s")


async def measure(stage: Stage, sizes: Sizes) -> Section:
    found = [await _beside_hostile(stage, sizes, kind) for kind in _HOSTILE]
    found += [await _beside_backlog(stage, sizes), await _beside_callbacks(stage, sizes)]
    return Section(
        name="relay_beside",
        title="A healthy endpoint beside others",
        about=f"PostgreSQL, {DISPATCHERS} dispatcher processes, {_ORDERS_PER_SECOND} orders a second for "
        f"{sizes.beside_seconds:.0f} s, each with two events, of which every endpoint hears. Seconds from an event to "
        "its delivery at the healthy one, where every event arrived once, counted in the tables and by Envoy.",
        columns=("beside", "events", "p50 s", "p99 s"),
        rows=[each.row() for each in found],
        goals=[each.goal() for each in found],
        data=[asdict(each) for each in found],
    )


async def _beside_hostile(stage: Stage, sizes: Sizes, kind: Kind) -> Beside:
    async with _database(stage, f"relay_{kind}") as (url, connection):
        urls = await hostile(stage, kind)
        for each in urls.values():
            await events.add_endpoint(connection, each)
        return await _beside(stage, sizes, url, connection, f"{len(urls)} {_HOSTILE[kind]}")


async def _beside_backlog(stage: Stage, sizes: Sizes) -> Beside:
    """All of it is due before there is a healthy endpoint."""
    async with _database(stage, "relay_backlog") as (url, connection):
        (hanging,) = (await hostile(stage, "hanging")).values()
        await events.add_endpoint(connection, hanging)
        await events.add_orders(connection, sizes.backlog // events.EVENTS_OF_ORDER)
        await fan_out_here(url)
        await _refuse_unless(connection, sizes.backlog, events.IS_DUE)
        return await _beside(stage, sizes, url, connection, f"1 that hangs, with {sizes.backlog:,} deliveries due")


async def _beside_callbacks(stage: Stage, sizes: Sizes) -> Beside:
    async with _database(stage, "relay_callbacks") as (url, connection):
        await events.add_orders(connection, sizes.callbacks)
        await events.add_callbacks(connection)
        await fan_out_here(url)
        await fail_here(url)
        found = await _beside(stage, sizes, url, connection, f"{sizes.callbacks:,} callbacks that wait for a retry")
        await _refuse_unless(connection, sizes.callbacks, events.WAITS_FOR_A_RETRY)
        return found


@asynccontextmanager
async def _database(stage: Stage, name: str) -> AsyncIterator[tuple[str, Any]]:
    url = await stage.postgres_url(name)
    connection = await asyncpg.connect(url)
    try:
        yield url, connection
    finally:
        await connection.close()


async def _refuse_unless(connection: Any, wanted: int, condition: str) -> None:
    count = await connection.fetchval(f"SELECT count(*) FROM webhook_deliveries WHERE {condition}")
    if count != wanted:
        raise Mismatch(f"{count} deliveries are as {wanted} should be: {condition}")


async def _beside(stage: Stage, sizes: Sizes, url: str, connection: Any, others: str) -> Beside:
    """Beside what is in the database now."""
    await connection.execute("VACUUM ANALYZE", timeout=_TIMEOUT_SECONDS)
    got = await receiver(stage)
    healthy = await events.add_endpoint(connection, got.url)
    running = await dispatchers(stage, url)
    count = await _pay(connection, sizes.beside_seconds)
    await _until_delivered(stage, connection, healthy, count)
    if await got.count() != count:
        raise Mismatch("not every event has arrived at the healthy endpoint once")
    p50, p99 = [float(await connection.fetchval(_LATENCY_SECONDS, healthy, each)) for each in (0.5, 0.99)]
    await stage.stop(*running)
    print(f"  beside {others}: p50 {p50:.2f} s, p99 {p99:.2f} s", flush=True)
    return Beside(others, count, p50, p99)


async def _pay(connection: Any, seconds: float) -> int:
    """As many orders a second; how many events they had."""
    began, rounds = time.monotonic(), round(seconds / _ROUND_SECONDS)
    each = round(_ORDERS_PER_SECOND * _ROUND_SECONDS)
    for number in range(1, rounds + 1):
        await events.add_orders(connection, each)
        await asyncio.sleep(began + number * _ROUND_SECONDS - time.monotonic())
    return rounds * each * events.EVENTS_OF_ORDER


async def _until_delivered(stage: Stage, connection: Any, endpoint_id: str, count: int) -> None:
    """Who is hostile is ended before the dispatchers, which would hear it out."""
    wanted = f"SELECT count(*) FROM webhook_deliveries WHERE endpoint_id = '{endpoint_id}' AND state = 'delivered'"
    with suppress(TimeoutError):
        await events.until_count(connection, wanted, count, timeout_seconds=_PATIENCE_SECONDS)
    await stage.stop(HOSTILE)
    await events.until_count(connection, wanted, count, timeout_seconds=_TIMEOUT_SECONDS)
