"""A wire between the services and PostgreSQL that breaks: cut for a while, or just when a COMMIT is to be answered."""

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from urllib.parse import parse_qs, quote, urlsplit

_SOCKET = ".s.PGSQL.5432"
_HOT_STATEMENTS = (b"WITH taken AS", b"WITH released AS")


class Wire:
    """Carries connections to the server's socket while it is whole."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._is_whole = True
        self._delay_seconds = 0.0
        self._commits_to_lose = 0
        self._ends: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        self._is_whole = False
        for end in self._ends:
            end.transport.abort()

    def mend(self) -> None:
        self._is_whole = True

    def slow_down(self, seconds: float) -> None:
        """From now on everything takes that much longer, each way."""
        self._delay_seconds = seconds

    def lose_a_commit(self) -> None:
        """The server is told the next COMMIT and does it; the connection breaks before its client hears of that."""
        self._commits_to_lose += 1

    async def carry(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if not self._is_whole:
            client.transport.abort()
            return
        from_server, server = await asyncio.open_unix_connection(str(self._server))
        self._ends |= {client, server}
        is_losing = asyncio.Event()
        try:
            await asyncio.gather(
                self._to_server(reader, server, is_losing), self._to_client(from_server, client, is_losing)
            )
        finally:
            self._ends -= {client, server}

    async def _to_server(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, is_losing: asyncio.Event
    ) -> None:
        is_hot = False
        with suppress(OSError):
            while data := await client.read(65536):
                await asyncio.sleep(self._delay_seconds)
                is_hot = is_hot or any(begins in data for begins in _HOT_STATEMENTS)
                # A hot statement is prepared once and only named (Bind) from then on; it is its own COMMIT.
                if self._commits_to_lose and (b"COMMIT" in data or (is_hot and data.startswith(b"B"))):
                    self._commits_to_lose -= 1
                    is_losing.set()
                server.write(data)
                await server.drain()
        server.close()

    async def _to_client(
        self, server: asyncio.StreamReader, client: asyncio.StreamWriter, is_losing: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while (data := await server.read(65536)) and not is_losing.is_set():
                await asyncio.sleep(self._delay_seconds)
                client.write(data)
                await client.drain()
        client.transport.abort()


@asynccontextmanager
async def wired(database_url: str) -> AsyncIterator[tuple[Wire, str]]:
    """A wire to that database, and its URL through it."""
    url = urlsplit(database_url)
    # The path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="wire-"))
    wire = Wire(Path(parse_qs(url.query)["host"][0]) / _SOCKET)
    listener = await asyncio.start_unix_server(wire.carry, str(folder / _SOCKET))
    try:
        yield wire, f"postgresql://{url.netloc}{url.path}?host={quote(str(folder))}"
    finally:
        listener.close()
        wire.cut()
        shutil.rmtree(folder)


async def break_now_and_then(wire: Wire, random: Random, cuts: int, tally: Counter[str]) -> None:
    """That often: a COMMIT is done and its answer lost, or nothing comes through, or everything is slow for a while."""
    for _ in range(cuts):
        await asyncio.sleep(random.uniform(0.1, 0.8))
        kind = random.choices(("commit lost", "cut", "slow"), (60, 30, 10))[0]
        tally[kind] += 1
        match kind:
            case "commit lost":
                wire.lose_a_commit()
            case "cut":
                wire.cut()
                await asyncio.sleep(random.choice((0.0, random.uniform(0.0, 0.3), random.uniform(0.3, 1.2))))
                wire.mend()
            case "slow":
                wire.slow_down(random.uniform(0.02, 0.2))
                await asyncio.sleep(random.uniform(0.2, 1.0))
                wire.slow_down(0.0)
