"""`payorder listen` as a process."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from support.stack import without_test_settings


@dataclass(frozen=True, slots=True)
class Listener:
    """`payorder listen` while it runs; `first_line` is what it has said of itself, beside JSON on standard error."""

    process: Process
    first_line: str

    @property
    def endpoint_id(self) -> str:
        return self.first_line.split(" as endpoint ")[1].split(",")[0]

    async def lines(self, count: int) -> list[str]:
        return [await line_of(self.process, self.process.stdout) for _ in range(count)]

    async def end(self, by: signal.Signals) -> tuple[int, str]:
        """Its status, and what it has said besides."""
        self.process.send_signal(by)
        async with asyncio.timeout(30):
            said, wrong = await self.process.communicate()
        return self.process.returncode or 0, (said + wrong).decode()


@asynccontextmanager
async def listening(address: str, token: str, *options: str, **environment: str) -> AsyncIterator[Listener]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "payorder", "listen", "--address", address, *options),
        env=without_test_settings(dict(os.environ)) | {"TOKEN": token} | environment,
        stdout=PIPE,
        stderr=PIPE,
    )
    said_on = process.stderr if "--print-json" in options else process.stdout
    try:
        yield Listener(process, await line_of(process, said_on))
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def line_of(process: Process, stream: asyncio.StreamReader | None) -> str:
    assert stream
    async with asyncio.timeout(30):
        line = (await stream.readline()).decode().rstrip("\n")
    if not line and process.stderr:
        raise AssertionError(f"it has ended: {(await process.stderr.read()).decode()}")
    return line
