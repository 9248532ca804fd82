"""Fixtures that start real things once for the whole run: PostgreSQL, and a service with Envoy on each engine."""

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import asyncpg
import hypothesis
import pytest
from sqlalchemy import make_url

from payorder.adapters.database.engine import Database
from payorder.adapters.database.store import DatabaseStore
from payorder.local.postgres import EmbeddedPostgres
from support.records import NO_LIMITS
from support.service import migrate
from support.stack import Stack, running_postgres, running_stack

# As ./dev does it: gRPC's fork handlers can abort a child between fork and exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# How long an example takes says something of the machine, and nothing of what is tested.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")

ENGINES = ("sqlite", "postgresql")
# Engine and folder -> URL.
NewMigrated = Callable[[str, Path], Awaitable[str]]

# It looks through everything the run leaves behind, so it must come after everything.
LAST = "tests/safety/test_leaks.py"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Gives every clone, and what is chosen of its tests, a temporary folder of its own, which the next run clears.

    Of the one that pytest would take, every run takes away the way in for other users; PostgreSQL is one, under root.
    """
    # Ended like this it also stops what it has started, as with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if config.option.basetemp is None:
        clone = sha256(f"{os.getuid()} {config.rootpath} {config.args}".encode()).hexdigest()[:8]
        config.option.basetemp = Path(tempfile.gettempdir(), f"payorder-tests-{clone}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of LAST behind all others; those with a stack behind the others with it, as it is stopped then."""
    last = [item for item in items if item.nodeid.startswith(LAST)]
    items[:] = [item for item in items if not item.nodeid.startswith(LAST)]
    for engine in ENGINES:
        places = [place for place, item in enumerate(items) if _engine_of(item) == engine]
        after = places[-1] + 1 if places else len(items)
        items[after:after] = [item for item in last if _engine_of(item) == engine]
    items.extend(item for item in last if _engine_of(item) is None)


def _engine_of(item: pytest.Item) -> str | None:
    """The engine of the stack that a test uses."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("stack") if callspec else None


@pytest.fixture(scope="module", autouse=True)
def what_a_module_leaves_unclosed_is_its_own_fault() -> Iterator[None]:
    """Otherwise it fails whichever test the collector happens to run in."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedPostgres]:
    """One for all: with connections for a dozen services at once. It is never killed, so no disk is waited for."""
    data = tmp_path_factory.mktemp("postgres") / "data"
    async with running_postgres(data, max_connections="500", fsync="off") as server:
        yield server


async def new_database(engine: str, folder: Path, server: EmbeddedPostgres, *, template: str = "template1") -> str:
    """The URL of an empty database of that engine; of PostgreSQL's, a copy of `template`."""
    if engine == "sqlite":
        return f"sqlite:///{folder / 'payorder.db'}"
    name = f"test_{uuid4().hex}"
    connection = await asyncpg.connect(server.url())
    # As a copy of files it does not fill the write-ahead log, and what is the same is searched for leaks once.
    await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    await connection.close()
    return server.url(name)


@pytest.fixture(scope="session")
async def new_migrated(tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres) -> NewMigrated:
    """Makes migrated, empty databases: copies of one of each engine that is migrated once."""
    folder = tmp_path_factory.mktemp("migrated")
    urls = {engine: await new_database(engine, folder, postgres) for engine in ENGINES}
    for url in urls.values():
        await migrate(url)
    connection = await asyncpg.connect(urls["postgresql"])
    # What reading would write down in every copy is then the same in all.
    await connection.execute("VACUUM FREEZE")
    await connection.close()

    async def copied(engine: str, to: Path) -> str:
        if engine == "sqlite":
            shutil.copy(folder / "payorder.db", to)
        return await new_database(engine, to, postgres, template=make_url(urls["postgresql"]).database)

    return copied


@pytest.fixture(scope="session", params=ENGINES)
async def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres
) -> AsyncIterator[Stack]:
    """The whole service, once on each engine for the whole run."""
    folder = tmp_path_factory.mktemp(f"stack_{request.param}")
    url = await new_database(request.param, folder, postgres)
    # Payments of unknown outcome stay open, so that tests can look at them; tests/workflows settles them.
    async with running_stack(folder, url, reconcile_every_seconds="3600", watch_quiet_seconds="0.5") as running:
        yield running


@pytest.fixture(params=ENGINES)
async def database(
    request: pytest.FixtureRequest, tmp_path: Path, new_migrated: NewMigrated
) -> AsyncIterator[Database]:
    """A migrated, empty database of its own for each test, on each engine."""
    # Of many who come at once, the last waits for all others.
    opened = Database(await new_migrated(request.param, tmp_path), pool_size=20, pool_timeout_seconds=30)
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database) -> DatabaseStore:
    return DatabaseStore(database, reconcile_after_seconds=25, limits=NO_LIMITS, on_change=lambda *_: None)
