"""What several tests ask for, made at the same time instead of one after the other: most of it is waiting."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

Value = TypeVar("Value")


@asynccontextmanager
async def started_ahead(
    request: pytest.FixtureRequest, parameter: str, make: Callable[[str], Awaitable[Value]], *, at_once: int
) -> AsyncIterator[Mapping[str, "asyncio.Task[Value]"]]:
    """For a fixture: one task for each value of `parameter` with which a test of this session asks for it."""
    slots = asyncio.Semaphore(at_once)

    async def one(value: str) -> Value:
        async with slots:
            return await make(value)

    asking = [item for item in request.session.items if request.fixturename in getattr(item, "fixturenames", ())]
    values = dict.fromkeys(item.callspec.params[parameter] for item in asking)
    tasks = {value: asyncio.create_task(one(value)) for value in values}
    try:
        yield tasks
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
