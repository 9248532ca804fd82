"""A wire to PostgreSQL that a test can cut: before the server hears, or after it has done what it was told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

from payorder.local.postgres import EmbeddedPostgres

# How the messages end with which asyncpg has a prepared statement executed: Execute of the unnamed portal, Sync.
_EXECUTE_AND_SYNC = b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"


class Wire:
    """Carries connections to a server while it is whole."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._is_whole = True
        self._loses_commit_after: bytes | None = None
        self._loses_at = b""
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Every connection is reset, and no new one comes through."""
        self._is_whole = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._is_whole = True

    def lose_the_commit_of(self, statement: str) -> None:
        """Once: the server commits what began with this text, and the connection breaks before its client hears of it.

        The text must not have passed this connection before: then it is a prepared statement, and only named.
        """
        self._loses_commit_after, self._loses_at = statement.encode(), b"COMMIT;"

    def lose_the_answer_to(self, statement: str) -> None:
        """The same for a statement that is a transaction by itself: its own answer is lost."""
        self._loses_commit_after, self._loses_at = statement.encode(), _EXECUTE_AND_SYNC

    async def carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if not self._is_whole:
            to_client.transport.abort()
            return
        server, to_server = await asyncio.open_unix_connection(str(self._target))
        ends = {to_client, to_server}
        self._writers |= ends
        is_lost = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._tell(client, to_server, is_lost))
                both.create_task(self._answer(server, to_client, is_lost))
        finally:
            self._writers -= ends

    async def _tell(self, client: asyncio.StreamReader, server: asyncio.StreamWriter, is_lost: asyncio.Event) -> None:
        loses_this = False
        with contextlib.suppress(OSError):
            while data := await client.read(65536):
                if self._loses_commit_after is not None and self._loses_commit_after in data:
                    self._loses_commit_after, loses_this = None, True
                if loses_this and self._loses_at in data:
                    is_lost.set()
                server.write(data)
                await server.drain()
        server.transport.abort()

    async def _answer(self, server: asyncio.StreamReader, client: asyncio.StreamWriter, is_lost: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await server.read(65536):
                if is_lost.is_set():
                    break
                client.write(data)
                await client.drain()
        client.transport.abort()


@contextlib.asynccontextmanager
async def wire_to(server: EmbeddedPostgres, database: str, folder: Path) -> AsyncIterator[tuple[Wire, str]]:
    """A wire, and the URL of that database through it. `folder` is empty, and its path short."""
    wire = Wire(server.socket)
    listener = await asyncio.start_unix_server(wire.carry, str(folder / ".s.PGSQL.5432"))
    try:
        yield wire, f"postgresql://postgres@/{database}?host={quote(str(folder))}"
    finally:
        listener.close()
        wire.cut()
