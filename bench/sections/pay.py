"""PayOrder at its limit and at half of it: this service, the floor and the yardstick in turn."""

from dataclasses import asdict

from bench.measure import Figures, middle, pay
from bench.report import Goal, Section
from bench.sizes import Sizes
from bench.stage import Stage, Target

FLOOR = "floor"
RULES = "floor, with the contract's rules"
YARDSTICK = "yardstick (JSON)"
PAYORDER = "payorder"
KEYED = "payorder, with idempotency keys"
TOKENS = "payorder, each call with a new token"
SQLITE = "payorder on SQLite"
ENVOY_GRPC = "payorder behind Envoy (gRPC)"
ENVOY_HTTP1 = "payorder behind Envoy (JSON, HTTP/1.1)"
ENVOY_HTTP2 = "payorder behind Envoy (JSON, HTTP/2)"


_WHOSE = ("server", "postgres", "envoy", "load")
_COLUMNS = (
    "PayOrder",
    "calls/s",
    "p50 ms",
    "p99 ms",
    "server CPU ms",
    "PostgreSQL CPU ms",
    "Envoy CPU ms",
    "load CPU ms",
    "memory MiB",
)  # fmt: skip - a table


async def measure(stage: Stage, sizes: Sizes) -> list[Section]:
    targets = await _targets(stage)
    saturated = await _in_turn(stage, sizes, targets, rate_per_second=None)
    rate = saturated[PAYORDER].per_second / 2
    timed = [target for target in targets if target.name in (FLOOR, PAYORDER)]
    half = await _in_turn(stage, sizes, timed, rate_per_second=rate)
    return [_saturated(saturated, sizes), _half(half, rate)]


def _saturated(figures: dict[str, Figures], sizes: Sizes) -> Section:
    cpu_ratio = figures[PAYORDER].cpu_ms["server"] / figures[FLOOR].cpu_ms["server"]
    rules_ratio = figures[PAYORDER].cpu_ms["server"] / figures[RULES].cpu_ms["server"]
    rate_ratio = figures[PAYORDER].per_second / figures[YARDSTICK].per_second
    json_ratio = figures[ENVOY_HTTP1].per_second / figures[YARDSTICK].per_second
    server_ratio = figures[YARDSTICK].cpu_ms["server"] / figures[PAYORDER].cpu_ms["server"]
    return Section(
        name="saturated",
        title="PayOrder at its limit",
        about=f"{sizes.callers} callers, each with one call at a time, for {sizes.seconds:g} s, {sizes.repeats} runs "
        "of each in turn, medians. Processor latency 0. CPU is processor time for each call.",
        columns=_COLUMNS,
        rows=[_row(name, each) for name, each in figures.items()],
        goals=[
            Goal(
                "server CPU against the floor",
                cpu_ratio,
                "at most",
                1.3,
                "x",
                f"against a floor that also keeps the contract's rules {rules_ratio:.2f}x",
            ),
            Goal(
                "throughput against the yardstick",
                rate_ratio,
                "at least",
                5,
                "x",
                f"native gRPC; JSON through Envoy {json_ratio:.1f}x; server CPU {server_ratio:.1f}x less",
            ),
        ],
        data={name: asdict(each) for name, each in figures.items()},
    )


def _half(figures: dict[str, Figures], rate: float) -> Section:
    ratio = figures[PAYORDER].p99_ms / figures[FLOOR].p50_ms
    return Section(
        name="half",
        title="PayOrder at half of its limit",
        about=f"Calls arrive at random moments, {rate:.0f} a second on average, whether or not earlier ones were "
        "answered, and are timed from when they were due. Processor latency 0.",
        columns=_COLUMNS,
        rows=[_row(name, each) for name, each in figures.items()],
        goals=[Goal("p99 at half load against the floor's p50", ratio, "at most", 10, "x", "same rate of arrivals")],
        data={name: asdict(each) for name, each in figures.items()},
    )


def _row(name: str, figures: Figures) -> list[str]:
    cpu = [f"{figures.cpu_ms[whose]:.2f}" if whose in figures.cpu_ms else "" for whose in _WHOSE]
    return [
        name,
        f"{figures.per_second:.0f}",
        f"{figures.p50_ms:.1f}",
        f"{figures.p99_ms:.1f}",
        *cpu,
        f"{figures.memory_mib:.0f}",
    ]


async def _targets(stage: Stage) -> list[Target]:
    payorder = await stage.payorder(PAYORDER, await stage.postgres_url("payorder"))
    behind_envoy = await stage.behind_envoy(payorder)
    return [
        await stage.floor(FLOOR, await stage.postgres_url("floor")),
        await stage.floor(RULES, await stage.postgres_url("rules"), obeys_rules=True),
        payorder,
        payorder.called(KEYED, has_keys=True),
        payorder.called(TOKENS, has_own_tokens=True),
        behind_envoy.called(ENVOY_GRPC),
        behind_envoy.called(ENVOY_HTTP2, protocol="http2"),
        behind_envoy.called(ENVOY_HTTP1, protocol="http1"),
        await stage.payorder(SQLITE, await stage.sqlite_url()),
        await stage.yardstick(YARDSTICK, await stage.postgres_url("yardstick")),
    ]


async def _in_turn(
    stage: Stage, sizes: Sizes, targets: list[Target], *, rate_per_second: float | None
) -> dict[str, Figures]:
    """A B C A B C: what else the machine does meets all alike."""
    runs: dict[str, list[Figures]] = {target.name: [] for target in targets}
    for _ in range(sizes.repeats):
        for target in targets:
            figures = await pay(
                target,
                stage.tokens(target),
                seconds=sizes.seconds,
                callers=sizes.callers,
                rate_per_second=rate_per_second,
            )
            print(f"  {target.name}: {figures.per_second:.0f}/s", flush=True)
            runs[target.name].append(figures)
    return {name: middle(figures) for name, figures in runs.items()}
