"""The service as it was before events went anywhere: they are written, and nobody looks at them."""

import asyncio
from typing import Any

from payorder.__main__ import main
from payorder.app import telling


class _Nothing:
    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    def wake(self) -> None: ...

    async def run(self) -> None:
        await self._stopping.wait()

    def stop(self) -> None:
        self._stopping.set()


def _no_dispatcher(*_arguments: Any) -> telling.Dispatcher:
    nothing: Any = _Nothing()
    return telling.Dispatcher(fan_out=nothing, deliver=nothing, forget=nothing)


telling.dispatcher = _no_dispatcher
main()
