"""Trying cards so slowly that no limit is reached shows in the number of declines, and honest trade does not."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.audit_chain import BEGINNING
from payorder.adapters.database.engine import Database
from payorder.adapters.database.ids import begin_of_id
from payorder.adapters.database.rows import from_payment, to_milliseconds
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import audit_log, payments
from payorder.domain.declines import Attempts, DeclineLimits
from payorder.domain.order import Order
from payorder.domain.outcome import Approved, Declined
from payorder.domain.payment import Payment
from payorder.ports.store import Interval
from payorder.workflows.watch_declines import WatchDeclines
from support.records import a_payment, an_order, by, reply_of

LIMITS = DeclineLimits(declines_per_day=100, ratio=2)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
HOURLY = Interval(every_seconds=3600, settled_after_seconds=60)


A_WEEK = [DAY * number + HOUR * hour for number in range(2, 9) for hour in (1, 2)] * 5


class Trade:
    """Payments of the past, written as rows, because nobody can pay yesterday."""

    def __init__(self, store: DatabaseStore, database: Database) -> None:
        self.store = store
        self.database = database
        self.now = datetime.now(UTC)
        self.number = 0

    async def took_place(self, at: Sequence[timedelta], *, declined_one_in: int) -> None:
        """An attempt at each moment that long ago, each of an owner and with a card of its own."""
        rows, entries, declined = [], [], await self.order()
        for ago in at:
            self.number += 1
            when = to_milliseconds(self.now - ago)
            is_declined = self.number % declined_one_in == 0
            payment = a_payment(declined if is_declined else await self.order())
            payment = payment.after(Declined("lost_card") if is_declined else Approved(payment.id))
            rows.append(payment_row(payment, f"owner {self.number}", when))
            entries.append(audit_row(payment, self.number, when))

        async def write(connection: AsyncConnection) -> None:
            await connection.execute(insert(payments), rows)
            await connection.execute(insert(audit_log), entries)

        await self.database.write(write)

    async def order(self) -> Order:
        order = an_order()
        await self.store.add_order(order, by("alice"), reply_of(order), None)
        return order

    async def unusual(self) -> list[tuple[Attempts, float]]:
        """What is told of it, after all was added up; what takes place later must not be earlier than that."""
        while await self.store.add_up_statistics(HOURLY):
            pass
        told: list[tuple[Attempts, float]] = []
        watching = WatchDeclines(
            store=self.store,
            limits=LIMITS,
            every_seconds=600,
            on_unusual=lambda day, expected: told.append((day, expected)),
            on_fault=fail,
        )
        await watching.look()
        return told


def payment_row(payment: Payment, owner: str, when: int) -> dict[str, Any]:
    return from_payment(payment) | {
        "owner_sub": owner,
        "caller": owner,
        "status": payment.status,
        "decline_code": payment.decline_code,
        "processor_reference": payment.reference,
        "captured_minor": payment.amount.amount_minor if payment.reference else 0,
        "created_at": when,
        "claimed_at": when,
        "settled_at": when,
        "reply": b"reply",
    }


def audit_row(payment: Payment, number: int, when: int) -> dict[str, Any]:
    return {
        "id": f"{begin_of_id(when)}aaa-8aaa-{number:012d}",
        "chain": f"of attempt {number}",
        "seq": 1,
        "at": when,
        "actor": "payorder",
        "kind": "payment",
        "object_id": payment.id,
        "from_state": "processing",
        "to_state": payment.status,
        "outcome": "done",
        "prev_hash": BEGINNING,
        "hash": BEGINNING,
    }


def fail(fault: BaseException) -> None:
    raise fault


@pytest.fixture
def trade(store: DatabaseStore, database: Database) -> Trade:
    return Trade(store, database)


async def test_a_day_of_one_decline_a_minute_is_told(trade: Trade) -> None:
    """Where there is no past, too."""
    await trade.took_place([MINUTE * number for number in range(1, 24 * 60)], declined_one_in=1)
    [(day, expected)] = await trade.unusual()
    assert (1439, 1439, 216) == (day.answered, day.declined, round(expected))


async def test_of_honest_trade_nothing_is_told(trade: Trade) -> None:
    """A quiet week, and then a day with thrice as much."""
    await trade.took_place(A_WEEK, declined_one_in=10)
    await trade.took_place([HOUR, HOUR * 2, HOUR * 3] * 80, declined_one_in=8)
    assert [] == await trade.unusual()


async def test_among_honest_trade_it_is_told(trade: Trade) -> None:
    await trade.took_place(A_WEEK, declined_one_in=10)
    await trade.took_place([HOUR, HOUR * 2, HOUR * 3] * 80, declined_one_in=8)
    await trade.took_place([MINUTE * 6 * number for number in range(1, 200)], declined_one_in=1)
    [(day, expected)] = await trade.unusual()
    assert (240 + 199, 30 + 199, True) == (day.answered, day.declined, 40 < expected < 60)


async def test_few_declines_are_nothing_to_tell_of(trade: Trade) -> None:
    await trade.took_place([MINUTE * number for number in range(1, 101)], declined_one_in=1)
    assert [] == await trade.unusual()
    # Not earlier: an hour may have been added up in between.
    await trade.took_place([timedelta()], declined_one_in=1)
    assert 1 == len(await trade.unusual())


async def test_where_many_are_always_declined_as_many_are_usual(trade: Trade) -> None:
    past = [DAY * number + HOUR for number in range(2, 8)] * 50
    await trade.took_place(past, declined_one_in=2)
    await trade.took_place([HOUR] * 250, declined_one_in=2)
    assert [] == await trade.unusual()
