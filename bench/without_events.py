"""The service as it was before events went anywhere: they are written, and nobody looks at them."""

import asyncio
from typing import Any

from payorder import app
from payorder.__main__ import main


class _Nothing:
    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    def wake(self) -> None: ...

    async def run(self) -> None:
        await self._stopping.wait()

    def stop(self) -> None:
        self._stopping.set()


def _nothing(*_arguments: Any) -> Any:
    return _Nothing()


app._fan_out = _nothing
app._deliver = _nothing
main()
