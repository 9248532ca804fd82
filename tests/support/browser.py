"""A real browser, where there is one: Chromium without a window, spoken to by its DevTools protocol."""

import asyncio
import itertools
import os
import shutil
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from support.service import until

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # it cannot have one as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--window-size=900,900",
)


def installed() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab. Every command has its answer within half a minute."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        async with asyncio.timeout(30):
            await self._socket.send_json({"id": number, "method": method, "params": parameters})
            while (answer := await self._socket.receive_json()).get("id") != number:
                pass  # An event.
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def evaluate(self, expression: str) -> Any:
        answer = await self.command("Runtime.evaluate", expression=expression)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def shows(self, expression: str) -> None:
        """Waits until it is true of the page, and no other is on its way."""
        shown = f"document.readyState === 'complete' && Boolean({expression})"
        assert await until(lambda: self.evaluate(shown), bool)

    async def write(self, selector: str, text: str) -> None:
        await self.evaluate(f"document.querySelector('{selector}').focus()")
        await self.command("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        await self.evaluate(f"document.querySelector('{selector}').click()")


@asynccontextmanager
async def browser(program: str, folder: Path) -> AsyncIterator[Page]:
    """An empty page of a browser that keeps everything in `folder`, which must be empty."""
    process = await asyncio.create_subprocess_exec(
        *(program, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"),
        # Else it leaves something in the common folder.
        env=os.environ | {"TMPDIR": str(folder)},
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        async with aiohttp.ClientSession() as session:
            (address, *_) = await until(lambda: _pages(session, folder), bool)
            async with session.ws_connect(address) as socket:
                yield Page(socket)
    finally:
        process.terminate()
        await process.wait()


async def _pages(session: aiohttp.ClientSession, folder: Path) -> list[str]:
    """Where its pages are spoken to; none while it starts."""
    try:
        port = (folder / "DevToolsActivePort").read_text().splitlines()[0]
        async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
            targets = await response.json()
    except (OSError, IndexError, aiohttp.ClientError):
        return []
    return [target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page"]
