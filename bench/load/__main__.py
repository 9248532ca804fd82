"""Reads a Plan, warms up, says "ready", waits for a line, calls, and prints a Result. `python -m bench.load`."""

import asyncio
import json
import sys
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import asdict
from random import Random
from statistics import quantiles
from time import perf_counter
from typing import Any

import uvloop

from bench.load.calls import Call, calling
from bench.load.plan import Plan, Result

_SEED = 20


async def run(plan: Plan) -> Result:
    subjects = iter(plan.subjects)
    seconds_taken: list[float] = []
    async with calling(plan) as call:
        await _all([_timed(call, next(subjects), perf_counter(), []) for _ in range(plan.warm_up)])
        print("ready", flush=True)
        sys.stdin.readline()
        began = perf_counter()
        if plan.rate_per_second is None:
            await _call_in_turn(plan, call, subjects, seconds_taken)
        else:
            await _call_when_due(plan, call, subjects, seconds_taken)
        return _result(plan.warm_up, seconds_taken, perf_counter() - began)


async def _call_in_turn(plan: Plan, call: Call, subjects: Iterator[str], seconds_taken: list[float]) -> None:
    until = perf_counter() + plan.seconds

    async def caller(number: int) -> None:
        await asyncio.sleep(plan.ramp_seconds * number / plan.callers)
        while perf_counter() < until and (subject := next(subjects, None)) is not None:
            await _timed(call, subject, perf_counter(), seconds_taken)

    await _all([caller(number) for number in range(plan.callers)])


async def _call_when_due(plan: Plan, call: Call, subjects: Iterator[str], seconds_taken: list[float]) -> None:
    """A slow answer delays nobody else's call, as it is with callers who do not know of each other."""
    assert plan.rate_per_second is not None
    random = Random(_SEED)  # noqa: S311 - the same moments in every run
    began = due = perf_counter()
    async with asyncio.TaskGroup() as group:
        while due - began < plan.seconds and (subject := next(subjects, None)) is not None:
            due += random.expovariate(plan.rate_per_second)
            await asyncio.sleep(max(0, due - perf_counter()))
            group.create_task(_timed(call, subject, due, seconds_taken))


async def _timed(call: Call, subject: str, since: float, seconds_taken: list[float]) -> None:
    await call(subject)
    seconds_taken.append(perf_counter() - since)


async def _all(callers: Iterable[Coroutine[Any, Any, None]]) -> None:
    """The first that fails ends them all."""
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller)


def _result(warm_up: int, seconds_taken: list[float], seconds: float) -> Result:
    percentiles = quantiles(seconds_taken, n=100, method="inclusive")
    return Result(
        calls=warm_up + len(seconds_taken),
        timed_calls=len(seconds_taken),
        seconds=seconds,
        p50_ms=percentiles[49] * 1000,
        p99_ms=percentiles[98] * 1000,
        max_ms=max(seconds_taken) * 1000,
    )


def main() -> None:
    plan = Plan(**json.loads(sys.stdin.readline()))
    print(json.dumps(asdict(uvloop.run(run(plan)))), flush=True)
    # Whoever reads that also wants to know how much processor time this process has taken.
    sys.stdin.read()


if __name__ == "__main__":
    main()
