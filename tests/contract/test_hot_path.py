"""The hot path writes what the general way writes, and where it cannot, it writes nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import select, update

from conftest import new_database
from payorder.adapters.database import hot_path as module
from payorder.adapters.database import payments as general
from payorder.adapters.database.engine import Database
from payorder.adapters.database.hot_path import HotPath
from payorder.adapters.database.migrate import upgrade
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import audit_log, metadata, payments
from payorder.domain.money import Currency, Money
from payorder.domain.order import Order
from payorder.domain.origin import SERVICE, Origin
from payorder.domain.outcome import Failed
from payorder.domain.payment import Payment
from payorder.local.postgres import EmbeddedPostgres
from support.records import (
    BANK_ACCOUNT,
    LATER,
    NO_LIMITS,
    TERMS,
    TOTAL,
    a_key,
    a_payment,
    an_order,
    by,
    failed,
    reply_of,
    succeeded,
)
from support.service import until

Settle = Callable[[Payment], Awaitable[object]]
# What the database's own clock has written, or made of it.
BY_THE_CLOCK = {
    "payments": {"next_poll_at", "claimed_at", "source_fingerprint"},
    "orders": {"declined_at", "audit_hash", "audit_previous"},
    "audit_log": {"id", "at", "prev_hash", "hash"},
    "events": {"id"},
}
ORDER_BY = {"audit_log": (audit_log.c.chain, audit_log.c.seq)}


@pytest.fixture
async def database(postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(await new_database("postgresql", tmp_path, postgres), pool_size=20, pool_timeout_seconds=5)
    await upgrade(opened)
    yield opened
    await opened.close()


@pytest.fixture
def hot_path(database: Database) -> HotPath:
    assert database.hot_path is not None
    return database.hot_path


async def placed(database: Database, **changes: Any) -> Order:
    order = an_order(**changes)
    store = DatabaseStore(database, reconcile_after_seconds=25, limits=NO_LIMITS, on_change=lambda *_: None)
    await store.add_order(order, by(order.owner), reply_of(order), None)
    return order


async def everything(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table; of what the clock has written only whether there is something."""
    found = {}
    async with database.read() as connection:
        for table in metadata.sorted_tables:
            rows = (
                await connection.execute(select(table).order_by(*ORDER_BY.get(table.name, table.primary_key)))
            ).mappings()
            found[table.name] = [
                {
                    name: value is not None if name in BY_THE_CLOCK.get(table.name, ()) else value
                    for name, value in row.items()
                }
                for row in rows
            ]
    return found


def renamed(found: dict[str, list[dict[str, Any]]], *names: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The same rows under other ids, so that two orders can be compared."""

    def other(value: Any) -> Any:
        for old, new in (pair for each in names for pair in each.items()):
            value = value.replace(old, new) if isinstance(value, str) else value
            value = value.replace(old.encode(), new.encode()) if isinstance(value, bytes) else value
        return value

    return {
        table: [{name: other(value) for name, value in row.items()} for row in rows] for table, rows in found.items()
    }


def of_order(found: dict[str, list[dict[str, Any]]], order: Order, payment: Payment) -> dict[str, Any]:
    rows = {
        table: [row for row in rows if order.id in (row.get("id"), row.get("order_id"), row.get("chain"))]
        for table, rows in found.items()
    }
    return renamed(rows, {order.id: "ORDER", payment.id: "PAYMENT"})


PAYMENTS = [
    pytest.param({}, None, id="a card"),
    pytest.param({"source": BANK_ACCOUNT}, None, id="a bank account"),
    pytest.param({}, a_key(), id="with a key"),
    pytest.param({"created_at": LATER, "processor": "other"}, a_key("k" * 255), id="another processor, later"),
    pytest.param({"amount": Money(1234, Currency("BHD", 3))}, None, id="three minor digits"),
]
ENDS: list[Any] = [
    pytest.param(succeeded, id="succeeded"),
    pytest.param(failed, id="declined"),
    pytest.param(lambda payment: payment.after(Failed("fenced")), id="failed"),
]


@pytest.mark.parametrize(("changes", "key"), PAYMENTS)
@pytest.mark.parametrize("end", ENDS)
async def test_both_ways_write_the_same_rows(
    database: Database, hot_path: HotPath, changes: dict[str, Any], key: Any, end: Callable[[Payment], Payment]
) -> None:
    owners = {"hot": "alice", "general": "bob"}
    orders = {
        way: await placed(database, owner=owner, total=changes.get("amount", TOTAL)) for way, owner in owners.items()
    }
    attempts = {way: a_payment(order, **changes) for way, order in orders.items()}
    hot, slow = attempts["hot"], attempts["general"]

    assert await hot_path.claim(hot, by("alice"), key, TERMS)
    assert await database.write(lambda c: general.claim(c, slow, by("bob"), key, TERMS)) is None
    found = await everything(database)
    assert_same(found, orders, attempts)

    assert await hot_path.settle(end(hot), reply_of(end(hot)), LATER, SERVICE)
    assert await database.finish(lambda c: general.settle(c, end(slow), reply_of(end(slow)), LATER, SERVICE)) is None
    found = await everything(database)
    assert_same(found, orders, attempts)
    assert len(found["audit_log"]) == 2 * (4 if end is succeeded else 3)


def assert_same(found: Any, orders: dict[str, Order], attempts: dict[str, Payment]) -> None:
    rows = {way: of_order(found, orders[way], attempts[way]) for way in orders}
    assert renamed(rows["general"], {"bob": "alice"}) == renamed(rows["hot"], {})


async def test_a_claim_that_cannot_be_made_so_changes_nothing(database: Database, hot_path: HotPath) -> None:
    order = await placed(database)
    taken, free = await placed(database), await placed(database)
    assert await hot_path.claim(a_payment(taken), by("alice"), a_key(), TERMS)
    before = await everything(database)
    for payment, owner, key in (
        (a_payment(order), "bob", None),
        (a_payment(order, order_id=an_order().id), "alice", None),
        (a_payment(order, amount=Money(5000, TOTAL.currency)), "alice", None),
        (a_payment(order, amount=Money(4999, Currency("EUR", 2))), "alice", None),
        (a_payment(taken), "alice", None),
        (a_payment(free), "alice", a_key()),
        (replace(a_payment(free), source=replace(BANK_ACCOUNT, number="12")), "alice", None),
    ):
        assert not await hot_path.claim(payment, by(owner), key, TERMS)
        assert before == await everything(database)


async def test_a_service_claims_the_order_of_anybody_in_its_own_name(database: Database, hot_path: HotPath) -> None:
    order = await placed(database)
    assert await hot_path.claim(a_payment(order), Origin("shop", acts_for_any_owner=True), a_key(), TERMS)
    assert ["shop"] == [row["caller"] for row in (await everything(database))["payments"]]
    assert not await hot_path.claim(a_payment(await placed(database)), Origin("shop"), None, TERMS)


async def test_both_ways_number_the_attempts_with_one_source(database: Database, hot_path: HotPath) -> None:
    same = {"source_fingerprint": b"sixteen bytes .."}
    for way in (hot_path.claim, hot_path.claim, None, hot_path.claim):
        payment = a_payment(await placed(database), **same)
        if way is not None:
            assert await way(payment, by("alice"), None, TERMS)
        else:
            await claim_generally(database, payment)
    numbers = [row["source_attempt"] for row in (await everything(database))["payments"]]
    assert [1, 2, 3, 4] == numbers


async def claim_generally(database: Database, payment: Payment) -> None:
    assert await database.write(lambda c: general.claim(c, payment, by("alice"), None, TERMS)) is None


async def test_nobody_waits_behind_a_statement_that_was_given_up(database: Database, hot_path: HotPath) -> None:
    order = await placed(database)
    blocker = await asyncpg.connect(database.url.set(drivername="postgresql").render_as_string(hide_password=False))
    async with blocker.transaction():
        await blocker.execute("SELECT 1 FROM orders WHERE id = $1 FOR UPDATE", order.id)
        waiting = asyncio.create_task(hot_path.claim(a_payment(order), by("alice"), None, TERMS))
        await until(lambda: locks_waited_for(blocker), bool)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [] == hot_path._claims._idle
        assert await hot_path.claim(a_payment(await placed(database)), by("alice"), None, TERMS)
    await blocker.close()


async def locks_waited_for(connection: Any) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))


async def test_a_connection_that_was_long_unused_is_not_used_again(
    database: Database, hot_path: HotPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS_MAX", 0.0)
    used = []
    for _ in range(2):
        assert await hot_path.claim(a_payment(await placed(database)), by("alice"), None, TERMS)
        used += [connection for connection, _ in hot_path._claims._idle]
    assert 2 == len(set(map(id, used)))
    assert [True, False] == [connection.is_closed() for connection in used]


@pytest.mark.parametrize("counted", ["declines_per_order", "attempts_per_owner", "attempts_per_source"])
async def test_what_is_beyond_a_limit_is_not_claimed_so(database: Database, hot_path: HotPath, counted: str) -> None:
    order, same = await placed(database), {"source_fingerprint": b"sixteen bytes .."}
    terms = replace(TERMS, limits=replace(NO_LIMITS, **{counted: 1}))
    payment = a_payment(order, **same)
    assert await hot_path.claim(payment, by("alice"), None, terms)
    assert await hot_path.settle(failed(payment), reply_of(failed(payment)), LATER, SERVICE)
    before = await everything(database)
    assert not await hot_path.claim(a_payment(order, **same), by("alice"), None, terms)
    assert before == await everything(database)
    none = replace(TERMS, limits=NO_LIMITS)
    assert await hot_path.claim(a_payment(order, **same), by("alice"), None, none)
    # Where nothing is counted, no attempt is numbered, and no index is written.
    assert (await everything(database))["payments"][-1]["source_attempt"] is None


async def test_an_order_that_is_paid_or_cancelled_is_not_claimed(database: Database, hot_path: HotPath) -> None:
    order = await placed(database)
    payment = a_payment(order)
    assert await hot_path.claim(payment, by("alice"), None, TERMS)
    assert await hot_path.settle(succeeded(payment), reply_of(payment), LATER, SERVICE)
    before = await everything(database)
    assert not await hot_path.claim(a_payment(order), by("alice"), None, TERMS)
    assert before == await everything(database)


async def test_only_the_first_end_of_a_payment_is_written(database: Database, hot_path: HotPath) -> None:
    payment = a_payment(await placed(database))
    assert await hot_path.claim(payment, by("alice"), None, TERMS)
    assert await hot_path.settle(failed(payment), reply_of(failed(payment)), LATER, SERVICE)
    before = await everything(database)
    for end in (succeeded(payment), failed(payment)):
        assert not await hot_path.settle(end, reply_of(end), LATER, SERVICE)
        assert before == await everything(database)


async def test_of_many_claims_at_once_one_is_made(database: Database, hot_path: HotPath) -> None:
    order = await placed(database)
    for key in (None, a_key()):
        claims = [hot_path.claim(a_payment(order), by("alice"), key, TERMS) for _ in range(50)]
        assert [True] * (key is None) == [made for made in await asyncio.gather(*claims) if made]
    assert 1 == len((await everything(database))["payments"])


async def test_a_release_without_a_settlement_is_undone(database: Database, hot_path: HotPath) -> None:
    """It cannot come to that; if it did, an order would be free while its payment is open."""
    payment = a_payment(await placed(database))
    assert await hot_path.claim(payment, by("alice"), None, TERMS)

    async def end_it(connection: Any) -> None:
        end = {"status": "failed", "next_poll_at": None, "settled_at": 1, "reply": b""}
        await connection.execute(update(payments).values(end))

    await database.write(end_it)
    before = await everything(database)
    assert not await hot_path.settle(succeeded(payment), reply_of(payment), LATER, SERVICE)
    assert before == await everything(database)
