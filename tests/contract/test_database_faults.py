"""What the database does to the flow when it is unwell: phases are run again, and what was not written is not told."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event

from conftest import new_database
from payorder.adapters.database.engine import Database
from payorder.adapters.database.migrate import upgrade
from payorder.adapters.database.store import DatabaseStore
from payorder.domain.errors import Busy
from payorder.domain.order import Order
from payorder.domain.states import OrderStatus
from payorder.local.postgres import EmbeddedPostgres
from payorder.ports.store import CommitUnknown, PageRequest
from support.records import LATER, NO_LIMITS, NOON, a_payment, an_order, by, reply_of, succeeded
from support.service import until
from support.sqlite import writer_of_another_process
from support.stack import running_postgres
from support.up import alive, descendants_of

ALL = PageRequest(size=100, after=None)


def store_on(database: Database) -> DatabaseStore:
    return DatabaseStore(database, reconcile_after_seconds=25, limits=NO_LIMITS, on_change=lambda *_: None)


async def added(store: DatabaseStore) -> Order:
    order = an_order()
    await store.add_order(order, by(order.owner), reply_of(order), None)
    return order


async def paid(store: DatabaseStore, order: Order) -> None:
    payment = a_payment(order)
    assert await store.claim(payment, by(order.owner), None) is None
    end = succeeded(payment)
    assert reply_of(end) == await store.settle(end, reply_of(end), LATER)


async def is_busy(work: Awaitable[object]) -> bool:
    try:
        await work
    except Busy:
        return True
    return False


async def payments_of(store: DatabaseStore, order: Order) -> int:
    return len((await store.list_payments(order.id, order.owner, ALL)).items)


@pytest.fixture
async def url(postgres: EmbeddedPostgres, tmp_path: Path) -> str:
    return await new_database("postgresql", tmp_path, postgres)


@pytest.fixture
async def store(url: str) -> AsyncIterator[DatabaseStore]:
    """On PostgreSQL."""
    async with opened(url) as store:
        yield store


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[DatabaseStore]:
    database = Database(url, pool_size=5, pool_timeout_seconds=2)
    await upgrade(database)
    yield store_on(database)
    await database.close()


async def told(url: str, *statements: str) -> None:
    """From outside the service."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


# Conflicts: the phase is run again as a whole


def refusing(table: str, sqlstate: str, times: int) -> tuple[str, ...]:
    """Statements after which the next writes to a table fail; a sequence counts, because it is not rolled back."""
    return (
        "CREATE SEQUENCE attempts",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF nextval('attempts') <= {times} THEN RAISE EXCEPTION 'not now' USING ERRCODE = '{sqlstate}'; END IF; "
        "RETURN NEW; END $$",
        f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()",
    )


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "55P03"])
@pytest.mark.parametrize("table", ["orders", "payments", "audit_log", "events"])
async def test_what_lost_against_another_transaction_is_run_again(
    store: DatabaseStore, url: str, sqlstate: str, table: str
) -> None:
    order = await added(store)
    await told(url, *refusing(table, sqlstate, times=3))
    await paid(store, order)
    assert OrderStatus.APPROVED == (await store.get_order(order.id, order.owner)).status
    assert 1 == await payments_of(store, order)


@pytest.mark.parametrize("sqlstate", ["40001", "53100", "53200", "57014", "25006"])
async def test_what_never_succeeds_is_busy_and_nothing_is_written(
    store: DatabaseStore, url: str, sqlstate: str
) -> None:
    """Also a full disk (53100), no memory (53200), a statement that took too long (57014), a standby (25006)."""
    order = await added(store)
    await told(url, *refusing("audit_log", sqlstate, times=1000))
    payment = a_payment(order)
    assert await is_busy(store.claim(payment, by(order.owner), None))
    assert (0, order) == (await payments_of(store, order), await store.get_order(order.id, order.owner))


async def test_a_commit_that_the_database_is_not_sure_of_is_not_called_nothing(store: DatabaseStore, url: str) -> None:
    """40003, as distributed databases answer when they have lost sight of it."""
    order = await added(store)
    await told(url, *refusing("payments", "40003", times=1000))
    with pytest.raises(CommitUnknown):
        await store.claim(a_payment(order), by(order.owner), None)


async def test_an_audit_entry_that_cannot_be_written_keeps_the_change_from_being_made(
    store: DatabaseStore, url: str
) -> None:
    order = await added(store)
    payment = a_payment(order)
    assert await store.claim(payment, by(order.owner), None) is None
    await told(url, *refusing("audit_log", "53100", times=1000))
    assert await is_busy(store.settle(succeeded(payment), reply_of(payment), LATER))
    open_order = await store.get_order(order.id, order.owner)
    assert (OrderStatus.PLACED, payment.id) == (open_order.status, open_order.active_payment_id)
    await told(url, "DROP TRIGGER refuse ON audit_log")
    assert reply_of(payment) == await store.settle(succeeded(payment), reply_of(payment), LATER)


# A server that goes


async def test_a_server_that_becomes_read_only_is_busy_until_it_can_be_written(store: DatabaseStore, url: str) -> None:
    """As after a failover, when the old connections lead to what is now a standby."""
    order = await added(store)
    name = url.partition("?")[0].rpartition("/")[2]
    await told(url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on', *ending_others())
    assert await is_busy_or_unknown(store.claim(a_payment(order), by(order.owner), None))
    assert await is_busy(store.claim(a_payment(order), by(order.owner), None))
    await told(url, "SET default_transaction_read_only = off", f'ALTER DATABASE "{name}" RESET ALL', *ending_others())
    await until_it_works(lambda: store.get_order(order.id, order.owner))
    await until_it_works(lambda: paid(store, order))
    assert 1 == await payments_of(store, order)


def ending_others() -> tuple[str, ...]:
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return (f"SELECT pg_terminate_backend(pid) {others}",)


async def is_busy_or_unknown(work: Awaitable[object]) -> bool:
    try:
        return await is_busy(work)
    except CommitUnknown:
        return True


async def until_it_works(work: Callable[[], Awaitable[Any]]) -> None:
    """The first answers after an outage may be the old connections'."""
    for _ in range(100):
        if not await is_busy_or_unknown(work()):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the database did not come back")


async def test_what_was_written_is_there_after_the_server_was_killed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running_postgres(data) as server:
        url = await new_database("postgresql", tmp_path, server)
        async with opened(url) as store:
            orders = [await added(store) for _ in range(3)]
            await paid(store, orders[0])
            claimed = a_payment(orders[1])
            await store.claim(claimed, by(orders[1].owner), None)
            postmaster = int((data / "postmaster.pid").read_text().splitlines()[0])
            processes = [postmaster, *descendants_of(postmaster)]
            os.kill(postmaster, signal.SIGKILL)
            assert [] == await until(lambda: alive(processes), lambda left: not left)
            for order in orders:
                assert await is_busy_or_unknown(store.claim(a_payment(order), by(order.owner), None))
    async with running_postgres(data), opened(url) as store:
        statuses = [(await store.get_order(order.id, order.owner)).status for order in orders]
        assert [OrderStatus.APPROVED, OrderStatus.PLACED, OrderStatus.PLACED] == statuses
        assert [1, 1, 0] == [await payments_of(store, order) for order in orders]
        end = succeeded(claimed)
        assert reply_of(end) == await store.settle(end, reply_of(end), NOON)
        await paid(store, orders[2])


# SQLite


@asynccontextmanager
async def on_sqlite(folder: Path) -> AsyncIterator[tuple[DatabaseStore, Path]]:
    path = folder / "payorder.db"
    async with opened(f"sqlite:///{path}") as store:
        yield store, path


async def test_a_writer_of_another_process_is_waited_for(tmp_path: Path) -> None:
    async with on_sqlite(tmp_path) as (store, path):
        order = await added(store)
        async with writer_of_another_process(path):
            paying = asyncio.create_task(paid(store, order))
            await asyncio.sleep(1.5)
            assert not paying.done()
        await paying


async def test_a_full_disk_is_busy_until_there_is_room(tmp_path: Path) -> None:
    limits: list[int] = []

    def limit(connection: Any, _record: object) -> None:
        if limits:
            connection.execute(f"PRAGMA max_page_count = {limits[-1]}")

    async with on_sqlite(tmp_path) as (store, _):
        order = await added(store)
        further = [await added(store) for _ in range(20)]
        claimed = a_payment(await added(store))
        await store.claim(claimed, by("alice"), None)
        pools = (store._database._writes, store._database._finishes)
        for pool in pools:
            event.listen(pool._engine.sync_engine, "connect", limit)
        limits.append(1)  # SQLite makes of it as many pages as there are.
        for pool in pools:
            await pool.close()
        refused = [
            await is_busy(store.add_order(an_order(description="d" * 200), by("alice"), reply_of(order), None))
            for _ in range(40)
        ]
        assert refused[-1]
        # A claim is smaller than an order: for some there may be room.
        refused = [await is_busy(store.claim(a_payment(each), by(each.owner), None)) for each in (*further, order)]
        assert refused[-1]
        assert 0 == await payments_of(store, order)
        limits.append(1 << 20)
        for pool in pools:
            await pool.close()
        await paid(store, order)
        end = succeeded(claimed)
        assert reply_of(end) == await store.settle(end, reply_of(end), LATER)
