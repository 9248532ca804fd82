"""Connections: asyncpg or aiosqlite, their limits, and what to do when a database phase fails.

Reads are single statements without a transaction. Writes run as one short transaction that is retried as a whole when
the database asks for it. Neither ever contains a call to a processor.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import asyncpg
import stamina
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from payorder.adapters.database import postgresql
from payorder.adapters.database.hot_path import HotPath
from payorder.adapters.database.turns import Turns
from payorder.domain.errors import Busy
from payorder.ports.store import CommitUnknown

Result = TypeVar("Result")

# Serialization failure, deadlock, lock not available; SQLite: busy, locked.
_TRANSIENT_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
_TRANSIENT_SQLITE_CODES = frozenset({5, 6})
# I/O error, full, cannot open.
_AWAY_SQLITE_CODES = frozenset({10, 13, 14})
# Connection exceptions, too many connections, operator intervention (shutdown, crash, starting up).
_AWAY_SQLSTATE_PREFIXES = ("08", "53", "57P")
# Statement timeout, read-only after a failover, idle timeout, completion unknown.
_AWAY_SQLSTATES = frozenset({"57014", "25006", "25P03", "40003"})
# What asyncpg raises while a connection is being opened or lost reaches us as it is.
_UNWRAPPED = (asyncpg.InterfaceError, asyncpg.PostgresError)
_FINISH_TIMEOUT_SECONDS = 5.0


class Conflict(Exception):
    """What a transaction read has changed under it; it is to be run again."""


class Database:
    """One database by URL: `sqlite:///path` or `postgresql://user@host/name`. Raises ValueError on any other."""

    def __init__(self, url: str, *, pool_size: int, pool_timeout_seconds: float) -> None:
        driver_url = with_driver(url)
        self.url = driver_url
        # The short way for claims and settlements, where there is one.
        self.hot_path: HotPath | None = None
        if driver_url.get_backend_name() == "sqlite":
            # SQLite has one writer: waiting for its connection is fairer than waiting for its lock.
            self._writes = _Pool(_sqlite_engine, driver_url, 1, pool_timeout_seconds)
            self._finishes = _Pool(_sqlite_engine, driver_url, 1, _FINISH_TIMEOUT_SECONDS)
            self._records = _Pool(_sqlite_engine, driver_url, 1, pool_timeout_seconds)
            self._reads = _Pool(_sqlite_engine, driver_url, pool_size, pool_timeout_seconds)
            self._probes = _Pool(_sqlite_engine, driver_url, 1, pool_timeout_seconds)
            self._relays = self._writes
        else:
            self._writes = self._reads = _Pool(_postgresql_engine, driver_url, pool_size, pool_timeout_seconds)
            self._finishes = _Pool(_postgresql_engine, driver_url, 2, _FINISH_TIMEOUT_SECONDS)
            self._records = _Pool(_postgresql_engine, driver_url, 1, pool_timeout_seconds)
            self._probes = _Pool(_postgresql_engine, driver_url, 1, pool_timeout_seconds)
            # One for each loop that has something to do with webhooks.
            self._relays = _Pool(_postgresql_engine, driver_url, 3, _FINISH_TIMEOUT_SECONDS)
            self.hot_path = HotPath(
                postgresql.connect_arguments(driver_url),
                pool_size=max(1, pool_size // 2),
                pool_timeout_seconds=pool_timeout_seconds,
                finish_timeout_seconds=_FINISH_TIMEOUT_SECONDS,
            )
        self._retrying = stamina.AsyncRetryingCaller(
            attempts=6, timeout=None, wait_initial=0.005, wait_max=0.2, wait_jitter=0.02
        ).on(_is_transient)

    async def write(self, phase: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Run `phase` in one transaction, again from its start after a conflict. Raises Busy when it cannot begin."""
        with _busy_when_away():
            return await self._retrying(_in_transaction, self._writes, phase)

    async def record(self, phase: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Like `write`, on a connection of its own: for what no change of an order or payment may have to wait for."""
        with _busy_when_away():
            return await self._retrying(_in_transaction, self._records, phase)

    async def finish(self, phase: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Like `write`, on connections of its own: what was begun is not starved by what begins.

        `phase` may be repeated after it was done, so that a commit which was not heard of is Busy too.
        """
        return await self._repeatable(self._finishes, phase)

    async def relay(self, phase: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Like `finish`, for what is told to the world: it neither starves what was begun nor is starved."""
        return await self._repeatable(self._relays, phase)

    async def _repeatable(self, pool: "_Pool", phase: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        try:
            with _busy_when_away():
                return await self._retrying(_in_transaction, pool, phase)
        except CommitUnknown as unknown:
            raise Busy from unknown

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which every statement stands alone. Raises Busy when there is no way in."""
        with _busy_when_away():
            async with self._reads.connect(isolation_level="AUTOCOMMIT") as connection:
                yield connection

    @asynccontextmanager
    async def probe(self) -> AsyncIterator[AsyncConnection]:
        """Like `read`, on a connection of its own: a full pool is no reason to look unwell."""
        with _busy_when_away():
            async with self._probes.connect(isolation_level="AUTOCOMMIT") as connection:
                yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees one state of the database, until it is given back; nothing is written on it."""
        with _busy_when_away():
            if self.url.get_backend_name() == "sqlite":
                async with self._reads.connect(isolation_level="AUTOCOMMIT") as connection:
                    # A transaction of reads takes no lock that a writer would wait for.
                    await connection.exec_driver_sql("BEGIN")
                    try:
                        yield connection
                    finally:
                        await connection.exec_driver_sql("ROLLBACK")
            else:
                async with self._reads.connect(isolation_level="REPEATABLE READ") as connection:
                    yield connection

    async def close(self) -> None:
        for pool in (self._writes, self._finishes, self._records, self._reads, self._probes, self._relays):
            await pool.close()
        if self.hot_path:
            await self.hot_path.close()


class _Pool:
    """Connections of one kind; who waits for one gets it in turn. Raises Busy."""

    def __init__(
        self, open_engine: Callable[[URL, int], AsyncEngine], url: URL, size: int, timeout_seconds: float
    ) -> None:
        self._engine = open_engine(url, size)
        self._turns = Turns(size, timeout_seconds)

    @asynccontextmanager
    async def connect(self, **options: str) -> AsyncIterator[AsyncConnection]:
        await self._turns.take()
        try:
            async with self._engine.connect() as connection:
                yield await connection.execution_options(**options) if options else connection
        finally:
            self._turns.give_back()

    async def close(self) -> None:
        await self._engine.dispose()


async def _in_transaction(pool: _Pool, phase: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
    async with pool.connect() as connection:
        result = await phase(connection)
        try:
            await connection.commit()
        except (DBAPIError, OSError, *_UNWRAPPED) as error:
            if _is_transient(error):
                raise
            raise CommitUnknown from error
        return result


def with_driver(url: str) -> URL:
    """The URL with the asynchronous driver of its engine, whatever driver it names."""
    parsed = make_url(url)
    match parsed.get_backend_name():
        case "sqlite":
            return parsed.set(drivername="sqlite+aiosqlite")
        case "postgresql":
            return parsed.set(drivername="postgresql+asyncpg")
        case other:
            raise ValueError(f"no store for {other} databases: use sqlite or postgresql")


def _postgresql_engine(url: URL, pool_size: int) -> AsyncEngine:
    arguments = postgresql.connect_arguments(url)
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(**arguments),
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,
    )


def _sqlite_engine(url: URL, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=pool_size, max_overflow=0, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite_connection)
    event.listen(engine.sync_engine, "begin", _begin_sqlite_write)
    return engine


def _prepare_sqlite_connection(connection: Any, _record: object) -> None:
    # The driver would begin transactions late and deferred; _begin_sqlite_write begins them instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("busy_timeout=1000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite_write(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _is_transient(error: Exception) -> bool:
    if isinstance(error, Conflict):
        return True
    if not isinstance(error, DBAPIError):
        return False
    return _sqlstate(error) in _TRANSIENT_SQLSTATES or _sqlite_code(error) in _TRANSIENT_SQLITE_CODES


def _is_away(error: DBAPIError) -> bool:
    return (
        error.connection_invalidated
        or isinstance(error, InterfaceError)
        or _sqlstate(error).startswith(_AWAY_SQLSTATE_PREFIXES)
        or _sqlstate(error) in _AWAY_SQLSTATES
        or _sqlite_code(error) in _AWAY_SQLITE_CODES
        or _is_transient(error)
    )


def _sqlite_code(error: DBAPIError) -> int:
    return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


@contextmanager
def _busy_when_away() -> Iterator[None]:
    try:
        yield
    except (OSError, Conflict, *_UNWRAPPED) as error:
        raise Busy from error
    except DBAPIError as error:
        if _is_away(error):
            raise Busy from error
        raise
