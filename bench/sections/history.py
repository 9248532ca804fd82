"""The same calls with a few orders in the tables and with very many."""

import base64
from collections.abc import Awaitable, Callable
from random import Random
from statistics import median
from time import perf_counter
from typing import cast
from uuid import UUID

from bench.load.plan import Method, Plan
from bench.measure import pay, run
from bench.report import Goal, Section
from bench.sections.history_tables import OWNER_EVERY, added_up, fill, order_id
from bench.sections.rounds import DUE, round_seconds
from bench.sizes import Sizes
from bench.stage import Stage, Target

_PAY, _GET, _LIST, _LIST_FAR, _ROUND = (
    "PayOrder",
    "GetOrder",
    "ListOrders, page 1",
    "ListOrders, far page",
    "reconciler",
)
_PAGE_SIZE, _FAR_PAGE = 20, 10_000
_READS_PER_SECOND = 3000
_ROUNDS = 10
_RATIO_MAX = 1.15
_SEED = 20

Milliseconds = dict[str, list[float]]


async def measure(stage: Stage, sizes: Sizes) -> list[Section]:
    few = await _history(stage, sizes.history_few)
    many = await _history(stage, sizes.history_many)
    timing = [_times(stage, target, sizes, count) for target, count in (few, many)]
    found: list[Milliseconds] = [{name: [] for name in times} for times in timing]
    for _ in range(sizes.repeats):
        for name in timing[0]:
            for times, taken in zip(timing, found, strict=True):
                taken[name].append(await times[name]())
    return [_section(sizes, *({name: median(each) for name, each in taken.items()} for taken in found))]


async def _history(stage: Stage, count: int) -> tuple[Target, int]:
    url = await stage.postgres_url(f"orders_{count}")
    began = perf_counter()
    await fill(url, stage.folder, count)
    print(f"  {count:,} orders loaded in {perf_counter() - began:.0f} s", flush=True)
    target = await stage.payorder(f"{count:,} orders", url)
    await added_up(url)
    print(f"  {count:,} orders added up after {perf_counter() - began:.0f} s", flush=True)
    return target, count


def _times(stage: Stage, target: Target, sizes: Sizes, count: int) -> dict[str, Callable[[], Awaitable[float]]]:
    """What each call takes in milliseconds, one caller at a time."""
    random = Random(_SEED)  # noqa: S311 - the same orders in every run
    reads = round(sizes.seconds * _READS_PER_SECOND)
    owned = [order_id(random.randint(1, count // OWNER_EVERY) * OWNER_EVERY) for _ in range(reads)]
    return {
        _PAY: lambda: _pay(stage, target, sizes),
        _GET: lambda: _read(stage, target, sizes, "GetOrder", owned),
        _LIST: lambda: _read(stage, target, sizes, "ListOrders", [""] * reads),
        _LIST_FAR: lambda: _read(stage, target, sizes, "ListOrders", [_far_token(count)] * reads),
        _ROUND: lambda: _round(target),
    }


async def _pay(stage: Stage, target: Target, sizes: Sizes) -> float:
    """New orders, as it is in service: old ones are seldom paid."""
    return (await pay(target, stage.tokens(target), seconds=sizes.seconds, callers=1)).p50_ms


async def _read(stage: Stage, target: Target, sizes: Sizes, method: str, subjects: list[str]) -> float:
    plan = Plan(
        protocol="grpc",
        address=target.address,
        tokens=stage.tokens(target),
        subjects=subjects,
        seconds=sizes.seconds / 2,
        callers=1,
        method=cast("Method", method),
    )
    return (await run(target, plan))[0].p50_ms


async def _round(target: Target) -> float:
    return median(await round_seconds(target.database_url, _ROUNDS)) * 1000


def _far_token(count: int) -> str:
    """Of the page that comes after so many of the history, or of its last but one where there are fewer."""
    last = count // OWNER_EVERY
    skipped = min(_FAR_PAGE * _PAGE_SIZE, last - 2 * _PAGE_SIZE)
    return base64.urlsafe_b64encode(UUID(order_id((last - skipped) * OWNER_EVERY)).bytes).decode().rstrip("=")


def _section(sizes: Sizes, few: dict[str, float], many: dict[str, float]) -> Section:
    ratios = {name: many[name] / few[name] for name in few}
    far = many[_LIST_FAR] / many[_LIST]
    sizes_told = f"{sizes.history_many:,} orders against {sizes.history_few:,}"
    goals = [Goal(f"{name}: {sizes_told}", ratio, "at most", _RATIO_MAX, "x") for name, ratio in ratios.items()]
    return Section(
        name="history",
        title="A long history",
        about=f"One caller, median time of a call; a round of the reconciler settles {DUE} payments. The far page "
        f"is page {_FAR_PAGE:,}, or the last but one where there are fewer. Processor latency 0.",
        columns=("", f"{sizes.history_few:,} orders, ms", f"{sizes.history_many:,} orders, ms", "ratio"),
        rows=[[name, f"{few[name]:.2f}", f"{many[name]:.2f}", f"{ratio:.2f}x"] for name, ratio in ratios.items()],
        goals=[*goals, Goal("ListOrders: far page against page 1", far, "at most", _RATIO_MAX, "x")],
        data={"few": sizes.history_few, "many": sizes.history_many, "ratios": ratios, "ms": [few, many]},
    )
