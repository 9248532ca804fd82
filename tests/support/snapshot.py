"""All orders and payments of a stack's database, to see that nothing changed."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from support.stack import Stack

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    orders: list[Row]
    payments: list[Row]

    @property
    def open_orders(self) -> frozenset[str]:
        """Those that may change by themselves: the reconciler settles their payments."""
        return frozenset(row["id"] for row in self.orders if row["active_payment_id"] is not None)

    def without(self, orders: frozenset[str]) -> "Snapshot":
        return Snapshot(
            [row for row in self.orders if row["id"] not in orders],
            [row for row in self.payments if row["order_id"] not in orders],
        )


async def take(stack: Stack) -> Snapshot:
    orders, payments = "SELECT * FROM orders ORDER BY id", "SELECT * FROM payments ORDER BY id"
    if stack.database_url.startswith("sqlite"):
        return Snapshot(_sqlite_rows(stack.database_url, orders), _sqlite_rows(stack.database_url, payments))
    connection = await asyncpg.connect(stack.database_url)
    try:
        return Snapshot(
            [dict(row) for row in await connection.fetch(orders)],
            [dict(row) for row in await connection.fetch(payments)],
        )
    finally:
        await connection.close()


def _sqlite_rows(url: str, statement: str) -> list[Row]:
    connection = sqlite3.connect(f"file:{url.removeprefix('sqlite:///')}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(statement)]
    finally:
        connection.close()


class Watch:
    """Tells whether anything changed since it was last asked."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._last: Snapshot | None = None

    async def changes(self) -> tuple[list[Row], list[Row]]:
        """Orders and payments that are new or other than before; empty lists at the first time."""
        now = await take(self._stack)
        before, self._last = self._last or now, now
        # What was open before may have been settled in between.
        old, new = (snapshot.without(before.open_orders) for snapshot in (before, now))
        if old == new:
            return [], []
        return [row for row in new.orders if row not in old.orders], [
            row for row in new.payments if row not in old.payments
        ]
