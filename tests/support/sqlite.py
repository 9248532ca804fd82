"""The lock of a SQLite file that is written to."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def writer_of_another_process(path: str | Path) -> AsyncIterator[None]:
    """Nobody else can write to that file, and everybody can read.

    The lock is waited for in another thread: who holds it may be a service on this event loop, in the middle of a
    transaction, and would never end it while the loop stands still.
    """
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()
