"""Orders to be paid, made beforehand, and the payments that they have got."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import func, insert, make_url, select
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from bench.load.calls import AMOUNT_MINOR, CURRENCY
from bench.stage import OWNER
from payorder.adapters.database.audit_chain import BEGINNING
from payorder.adapters.database.tables import orders, payments
from payorder.adapters.system import new_id

_AT_ONCE = 5000
_DRIVERS = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}


async def make(database_url: str, count: int) -> list[str]:
    """The ids of `count` new orders."""
    ids = [new_id() for _ in range(count)]
    async with _transaction(database_url) as connection:
        for start in range(0, count, _AT_ONCE):
            await connection.execute(insert(orders), [_row(order_id) for order_id in ids[start : start + _AT_ONCE]])
    return ids


async def count_paid(database_url: str, order_ids: list[str]) -> int:
    """How many payments of these orders have succeeded."""
    counting = select(func.count()).select_from(payments).where(payments.c.status == "succeeded")
    count = 0
    async with _transaction(database_url) as connection:
        for start in range(0, len(order_ids), _AT_ONCE):
            some = payments.c.order_id.in_(order_ids[start : start + _AT_ONCE])
            count += (await connection.execute(counting.where(some))).scalar_one()
    return count


@asynccontextmanager
async def _transaction(database_url: str) -> AsyncIterator[AsyncConnection]:
    url = make_url(database_url)
    engine = create_async_engine(url.set(drivername=_DRIVERS[url.get_backend_name()]))
    async with engine.begin() as connection:
        yield connection
    await engine.dispose()


def _row(order_id: str) -> dict[str, object]:
    at = time.time_ns() // 1_000_000
    return {
        "id": order_id,
        "owner_sub": OWNER,
        "status": "placed",
        "currency": CURRENCY,
        "currency_digits": 2,
        "total_minor": AMOUNT_MINOR,
        "metadata": "{}",
        "audit_seq": 0,
        "audit_hash": BEGINNING,
        "audit_previous": BEGINNING,
        "created_at": at,
        "updated_at": at,
    }
