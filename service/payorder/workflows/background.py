"""Work that outlives the call which asked for it, owned by the application."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from payorder.domain.errors import Refusal

Result = TypeVar("Result")


class Background:
    """Holds every task it starts until it ends; `on_fault` is told of every bug that ends one, awaited or not."""

    def __init__(self, on_fault: Callable[[BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_fault = on_fault

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self, timeout_seconds: float) -> int:
        """Wait for what runs, and for what that starts. Returns how many were late and were cancelled."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._wait()
        late = len(self._tasks)
        for task in self._tasks:
            task.cancel()
        await self._wait()
        return late

    async def _wait(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not isinstance(fault, Refusal):
            self._on_fault(fault)
