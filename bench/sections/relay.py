"""Events on their way to receivers: how many a second, what each costs, and who waits for whom."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import asyncpg

from bench import events
from bench.measure import Figures, Mismatch, middle, pay
from bench.meter import Meter
from bench.receiver import EnvoyReceiver, receiver
from bench.report import Goal, Section
from bench.sections import healthy
from bench.sections.dispatching import DISPATCHERS, LOCAL, dispatchers, fan_out_here
from bench.sizes import Sizes
from bench.stage import Stage, Target

_GOAL_PER_SECOND = 5000
_TIMEOUT_SECONDS = 600
_FANNED_OUT = "SELECT 1 WHERE NOT EXISTS (SELECT FROM events WHERE fanned_out_at IS NULL AND faults < 5)"
_ENDED = "SELECT 1 WHERE NOT EXISTS (SELECT FROM webhook_deliveries WHERE state = 'pending')"


@dataclass(frozen=True, slots=True)
class Relayed:
    """`cpu_us` are microseconds of processor time for each event, by whose they are."""

    events: int
    per_second: float
    cpu_us: Mapping[str, float]

    def row(self, name: str) -> list[str]:
        cpu = [f"{self.cpu_us[whose]:.0f}" for whose in ("dispatchers", "postgres", "receiver")]
        return [name, f"{self.events:,}", f"{self.per_second:,.0f}", *cpu]


async def measure(stage: Stage, sizes: Sizes) -> list[Section]:
    sent = await _sent(stage, sizes)
    beside = await healthy.measure(stage, sizes)
    paid = await _paid(stage, sizes)
    return [_sent_section(sent, sizes), beside, _paid_section(paid, sizes)]


_FLOOR, _CLAIMED, _WHOLE = (
    "floor: claimed, signed, sent and written down in one straight line",
    "payorder: claimed, signed, sent and written down",
    "payorder, with the fan-out before it",
)


async def _sent(stage: Stage, sizes: Sizes) -> dict[str, Relayed]:
    kinds = {
        _FLOOR: partial(_claimed_and_sent, start=_floors),
        _CLAIMED: partial(_claimed_and_sent, start=_dispatchers),
        _WHOLE: _fanned_out_and_sent,
    }
    runs: dict[str, list[Relayed]] = {name: [] for name in kinds}
    for number in range(sizes.relays):
        for place, (name, run) in enumerate(kinds.items()):
            print(f"  {name}", flush=True)
            runs[name].append(await run(stage, f"relay_{place}_{number}", sizes.relayed))
    return {name: sorted(each, key=lambda run: run.per_second)[len(each) // 2] for name, each in runs.items()}


def _sent_section(sent: dict[str, Relayed], sizes: Sizes) -> Section:
    claimed, floor = sent[_CLAIMED], sent[_FLOOR]
    remark = (
        f"two cores for all of it; the floor: {floor.per_second:,.0f}/s; processor time of an event "
        f"{sum(claimed.cpu_us.values()) / sum(floor.cpu_us.values()):.2f}x the floor's"
    )
    return Section(
        name="relay",
        title="Events to receivers",
        about=f"PostgreSQL, {DISPATCHERS} dispatcher processes, one endpoint: an Envoy that answers 200 to what "
        f"is signed. {sizes.relays} runs of each in turn, medians. The floor is as many processes that claim, sign, "
        "POST and write down the same rows by the same libraries, and know nothing else. Every event was delivered "
        "once, counted in the tables and by Envoy.",
        columns=("", "events", "events/s", "dispatchers CPU us", "PostgreSQL CPU us", "receiver CPU us"),
        rows=[relayed.row(name) for name, relayed in sent.items()],
        goals=[Goal("events claimed and sent", claimed.per_second, "at least", _GOAL_PER_SECOND, "/s", remark)],
        data={"floor": asdict(floor), "claimed": asdict(claimed), "whole": asdict(sent[_WHOLE])},
    )


Starter = Callable[[Stage, str, EnvoyReceiver], Awaitable[dict[str, Meter]]]


async def _dispatchers(stage: Stage, url: str, _got: EnvoyReceiver) -> dict[str, Meter]:
    return await dispatchers(stage, url)


async def _floors(stage: Stage, url: str, got: EnvoyReceiver) -> dict[str, Meter]:
    names = [f"dispatcher {number} of the floor" for number in range(DISPATCHERS)]
    return {name: await stage.relay_floor(name, url, got.url) for name in names}


async def _claimed_and_sent(stage: Stage, database: str, count: int, *, start: Starter) -> Relayed:
    """What is there when the endpoint is enabled: only the way out is measured."""
    url, connection, got = await _prepared(stage, database)
    await events.add_orders(connection, count // events.EVENTS_OF_ORDER)
    await fan_out_here(url)
    await connection.execute("UPDATE webhook_endpoints SET state = 'disabled', disabled_because = 'owner'")
    meters = await start(stage, url, got)
    await connection.execute("VACUUM ANALYZE")
    return await _relayed(connection, got, meters, stage, count, events.enable)


async def _fanned_out_and_sent(stage: Stage, database: str, count: int) -> Relayed:
    """From the commit of the events on: all of them are there at once."""
    url, connection, got = await _prepared(stage, database)
    meters = await dispatchers(stage, url)

    async def write(connection: Any) -> None:
        await events.add_orders(connection, count // events.EVENTS_OF_ORDER)

    return await _relayed(connection, got, meters, stage, count, write)


async def _relayed(
    connection: Any, got: EnvoyReceiver, meters: dict[str, Meter], stage: Stage, count: int, write: Any
) -> Relayed:
    """`write` is what lets the dispatchers begin, once it is committed."""
    meters = {**meters, "postgres": stage.postgres_meter, "receiver": got.meter}
    async with connection.transaction():
        await write(connection)
        before = {name: meter.cpu_seconds() for name, meter in meters.items()}
    began = time.perf_counter()
    await _until_sent(connection)
    seconds = time.perf_counter() - began
    used = {name: (meter.cpu_seconds() - before[name]) / count * 1e6 for name, meter in meters.items()}
    await _refuse_skipped(connection, got, count)
    await connection.close()
    dispatchers = [name for name in meters if name.startswith("dispatcher")]
    await stage.stop(*dispatchers)
    cpu = {"dispatchers": sum(used[name] for name in dispatchers), "postgres": used["postgres"]}
    print(f"  {count / seconds:,.0f}/s", flush=True)
    return Relayed(count, count / seconds, cpu | {"receiver": used["receiver"]})


async def _refuse_skipped(connection: Any, got: EnvoyReceiver, count: int) -> None:
    delivered = await connection.fetchval(
        "SELECT count(DISTINCT event_id) FROM webhook_deliveries WHERE state = 'delivered'"
    )
    attempts = await connection.fetchval("SELECT count(*) FROM webhook_attempts WHERE delivered")
    received = await got.count()
    if not count == delivered == attempts == received:
        raise Mismatch(f"{count} events, {delivered} delivered in {attempts} attempts, and {received} received")


async def _prepared(stage: Stage, database: str) -> tuple[str, Any, EnvoyReceiver]:
    url = await stage.postgres_url(database)
    connection = await asyncpg.connect(url)
    got = await receiver(stage)
    await events.add_endpoint(connection, got.url)
    return url, connection, got


# What PayOrder pays for it


_BEFORE, _NOBODY, _SOMEBODY = "without fan-out and deliveries", "nobody listens", "an endpoint hears of it"
_ELSEWHERE = "an endpoint hears of it, from another process"


async def _paid(stage: Stage, sizes: Sizes) -> dict[str, Figures]:
    got = await receiver(stage)
    targets = {
        _BEFORE: await stage.payorder(_BEFORE, await stage.postgres_url("pay_before"), WEBHOOK_SENDS_HERE="false"),
        _NOBODY: await stage.payorder(_NOBODY, await stage.postgres_url("pay_nobody"), **LOCAL),
        _SOMEBODY: await stage.payorder(_SOMEBODY, await stage.postgres_url("pay_somebody"), **LOCAL),
        _ELSEWHERE: await _paid_elsewhere(stage, await stage.postgres_url("pay_elsewhere")),
    }
    connections = {name: await asyncpg.connect(targets[name].database_url) for name in (_SOMEBODY, _ELSEWHERE)}
    for connection in connections.values():
        await events.add_endpoint(connection, got.url)
    runs: dict[str, list[Figures]] = {name: [] for name in targets}
    for _ in range(sizes.repeats):
        for name, target in targets.items():
            runs[name].append(await _pay_at_half(stage, target, sizes))
            if name in connections:
                await _until_sent(connections[name])
            print(f"  {name}: {runs[name][-1].cpu_ms}", flush=True)
    for connection in connections.values():
        await connection.close()
    return {name: middle(each) for name, each in runs.items()}


async def _paid_elsewhere(stage: Stage, url: str) -> Target:
    """One process answers calls, and another one sends, whose processor time is not counted."""
    await stage.payorder("sends for another", url, **LOCAL)
    return await stage.payorder(_ELSEWHERE, url, WEBHOOK_SENDS_HERE="false")


async def _until_sent(connection: Any) -> None:
    await events.until_count(connection, _FANNED_OUT, 1, timeout_seconds=_TIMEOUT_SECONDS)
    await events.until_count(connection, _ENDED, 1, timeout_seconds=_TIMEOUT_SECONDS)


async def _pay_at_half(stage: Stage, target: Target, sizes: Sizes) -> Figures:
    return await pay(
        target,
        stage.tokens(target),
        seconds=sizes.seconds,
        callers=sizes.callers,
        rate_per_second=sizes.paid_per_second,
    )


def _paid_section(paid: dict[str, Figures], sizes: Sizes) -> Section:
    before = paid[_BEFORE].cpu_ms["server"]
    nobody, elsewhere = (paid[name].cpu_ms["server"] / before for name in (_NOBODY, _ELSEWHERE))
    return Section(
        name="relay_paid",
        title="PayOrder while events go out",
        about=f"{sizes.paid_per_second} payments a second, each with two events. CPU for each payment; with an "
        "endpoint it has everything that becomes of its events in it, unless another process sends them: then it is "
        "that of the process that answers. Events are written in all of them, the first too.",
        columns=("PayOrder", "p50 ms", "p99 ms", "server CPU ms", "PostgreSQL CPU ms"),
        rows=[
            [
                name,
                f"{each.p50_ms:.1f}",
                f"{each.p99_ms:.1f}",
                f"{each.cpu_ms['server']:.2f}",
                f"{each.cpu_ms['postgres']:.2f}",
            ]
            for name, each in paid.items()
        ],
        goals=[
            Goal("server CPU of PayOrder with events that nobody hears of", nobody, "at most", 1.1, "x"),
            Goal("server CPU of PayOrder with events that another process sends", elsewhere, "at most", 1.1, "x"),
        ],
        data={name: asdict(each) for name, each in paid.items()},
    )
