"""What administrators read of the store: everybody's orders a page at a time, and numbers that add up."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import audit
from payorder.adapters.database.admin import LOOKED_AT_MAX
from payorder.adapters.database.audit_chain import Head, of_changes
from payorder.adapters.database.changes import Change
from payorder.adapters.database.engine import Database
from payorder.adapters.database.ids import first_id
from payorder.adapters.database.rows import from_order, to_milliseconds
from payorder.adapters.database.statistics import SumsAhead
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import orders, statistics
from payorder.adapters.system import new_id
from payorder.domain.money import Currency, Money
from payorder.domain.order import Order
from payorder.domain.states import OrderStatus
from payorder.edge.translate_admin import to_dashboard_message
from payorder.ports.admin import Dashboard, MoneyTotal, OrderFilter
from payorder.ports.store import CancelRequest, Interval, PageRequest
from support.records import GBP, LATER, a_payment, an_order, by, failed, reply_of, succeeded

# Sums are made up to the end of the hundredth of a second in which something happened, as soon as that is over.
OFTEN = Interval(every_seconds=0.01, settled_after_seconds=0)
JPY = Currency("JPY", 0)


def id_at(time: datetime, number: int) -> str:
    """Without a row of zeros, in which a card number could be found."""
    return f"{first_id(to_milliseconds(time))[:15]}aaa-8aaa-aaaaaaaaaaa{number}"


# Orders


async def test_a_page_looks_at_so_many_orders_and_the_next_goes_on(store: DatabaseStore, database: Database) -> None:
    """However few fit, no page takes long, and together they find all."""
    rare = [5, LOOKED_AT_MAX + 7, LOOKED_AT_MAX + 8]
    ids = [f"0aaaaaaa-aaaa-7aaa-8aaa-{number:06x}aaaaaa" for number in range(2 * LOOKED_AT_MAX + 20)]
    template = from_order(an_order()) | {"audit_seq": 1, "audit_hash": b"", "audit_previous": b""}

    async def fill(connection: AsyncConnection) -> None:
        rows = [template | {"id": id_, "status": "cancelled" if n in rare else "placed"} for n, id_ in enumerate(ids)]
        for start in range(0, len(rows), 2000):
            await connection.execute(insert(orders), rows[start : start + 2000])

    await database.write(fill)
    for owner in (None, "alice"):
        wanted, after, sizes, found = OrderFilter(status=OrderStatus.CANCELLED, owner=owner), None, [], []
        while True:
            page = await store.find_orders(wanted, PageRequest(2, after))
            sizes.append(len(page.orders))
            found += [order.id for order in page.orders]
            after = page.go_on_after
            if after is None:
                break
        assert [ids[number] for number in reversed(rare)] == found
        # None of those that the first page looked at fits, but it says where to go on.
        assert [0, 2, 1] == sizes
    common = await store.find_orders(OrderFilter(status=OrderStatus.PLACED), PageRequest(100, None))
    assert (100, ids[-100]) == (len(common.orders), common.go_on_after)


async def test_times_and_amounts_are_exact(store: DatabaseStore) -> None:
    moments = [datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC) + timedelta(milliseconds=n) for n in range(5)]
    made = [an_order(id=id_at(at, n), created_at=at, total=Money(1000 + n, GBP)) for n, at in enumerate(moments)]
    for order in made:
        await store.add_order(order, by("alice"), reply_of(order), None)

    async def found(**wanted: Any) -> list[Order]:
        return (await store.find_orders(OrderFilter(**wanted), PageRequest(100, None))).orders[::-1]

    assert made[1:4] == await found(created_after=moments[1], created_before=moments[4])
    assert made[2:4] == await found(currency="GBP", amount_minor_min=1002, amount_minor_max=1003)
    # A clock that was a little ahead when the id was made.
    early = replace(made[0], id=id_at(moments[0] + timedelta(milliseconds=900), 9), created_at=moments[0])
    await store.add_order(early, by("alice"), reply_of(early), None)
    assert early in await found(created_before=moments[1])


# Numbers


@pytest.mark.parametrize("to_state", ["succeeded", "failed"])
async def test_no_sum_of_money_is_too_large(store: DatabaseStore, database: Database, to_state: str) -> None:
    """So many times the largest amount as the largest integer of a database cannot hold."""
    largest = Money(9_999_999_999_999_999, Currency("CLF", 4))
    order = an_order(total=largest)
    await store.add_order(order, by("alice"), reply_of(order), None)
    payment = a_payment(order)
    await store.claim(payment, by("alice"), None)
    ended = [Change("payment", payment.id, "processing", to_state)] * 1000

    async def end(connection: AsyncConnection) -> None:
        await audit.write(
            connection, of_changes(order.id, Head(9, b"", await audit.now(connection)), by("alice"), ended)
        )

    await database.write(end)
    totals = {largest.currency: MoneyTotal(1000 * largest.amount_minor)} if to_state == "succeeded" else {}
    assert totals == (await store.get_dashboard()).last_24_hours.totals
    await asyncio.sleep(0.02)
    while await store.add_up_statistics(OFTEN):
        pass
    assert totals == (await store.get_dashboard()).last_24_hours.totals


async def happened(store: DatabaseStore) -> None:
    """One order is paid after a decline and refunded, one is paid in yen, and one is placed."""
    for currency, with_failure in ((GBP, True), (JPY, False)):
        order = an_order(total=Money(4999, currency))
        await store.add_order(order, by("alice"), reply_of(order), None)
        for end in (failed, succeeded) if with_failure else (succeeded,):
            payment = a_payment(order)
            await store.claim(payment, by("alice"), None)
            await store.settle(end(payment), reply_of(end(payment)), LATER)
        if with_failure:
            cancelled: Any = await store.cancel_order(
                CancelRequest(order.id, by("alice"), new_id(), LATER), reply_of, None
            )
            await store.settle_refund(cancelled.refund, f"re_{order.id}", LATER)
    order = an_order()
    await store.add_order(order, by("alice"), reply_of(order), None)


def numbers(dashboard: Dashboard) -> list[Any]:
    return [
        (told.orders, told.payments, told.decline_codes, told.totals, told.success_rate)
        for told in (dashboard.total, dashboard.last_24_hours, dashboard.last_30_days)
    ]


async def test_the_dashboard_tells_what_happened(store: DatabaseStore) -> None:
    await happened(store)
    total, day, month = numbers(await store.get_dashboard())
    money = {GBP: MoneyTotal(4999, 4999), JPY: MoneyTotal(4999, 0)}
    payments = {"processing": 0, "succeeded": 2, "failed": 1, "cancelled": 0}
    now = {"placed": 1, "approved": 1, "shipped": 0, "delivered": 0, "cancelled": 1}
    assert (now, payments, {"insufficient_funds": 1}, money, 2 / 3) == total
    came = {"placed": 3, "approved": 2, "shipped": 0, "delivered": 0, "cancelled": 1}
    assert (came, payments | {"processing": 3}, {"insufficient_funds": 1}, money, 2 / 3) == day == month


async def test_an_empty_dashboard_has_no_rate(store: DatabaseStore) -> None:
    assert [None] * 3 == [rate for *_, rate in numbers(await store.get_dashboard())]


async def test_sums_change_nothing_of_what_is_told(store: DatabaseStore, database: Database) -> None:
    for _ in range(3):
        await happened(store)
        before = numbers(await store.get_dashboard())
        await asyncio.sleep(0.02)
        assert await store.add_up_statistics(OFTEN)
        while await store.add_up_statistics(OFTEN):
            pass
        assert before == numbers(await store.get_dashboard())
    # Everything is in a sum now; the next dashboard reads no entry.
    async with database.read() as connection:
        newest = select(func.max(statistics.c.until_at)).scalar_subquery()
        summed = select(func.sum(statistics.c.times)).where(statistics.c.until_at == newest)
        assert 3 * 14 == (await connection.execute(summed)).scalar_one()


async def test_of_many_replicas_one_writes_a_sum(store: DatabaseStore, database: Database) -> None:
    await happened(store)
    await asyncio.sleep(0.02)
    wide = Interval(every_seconds=0.001, settled_after_seconds=0)
    written = 0
    while made := sum(await asyncio.gather(*(store.add_up_statistics(wide) for _ in range(5)))):
        written += made
    async with database.read() as connection:
        sums = select(func.count(statistics.c.until_at.distinct()))
        assert written == (await connection.execute(sums)).scalar_one() > 0
    assert 3 == (await store.get_dashboard()).last_24_hours.orders["placed"]


async def summed_until(database: Database, milliseconds_from_now: int) -> None:
    """As if there were one sum, made by a clock that was wrong."""

    async def move(connection: AsyncConnection) -> None:
        until_at = await audit.now(connection) + milliseconds_from_now
        newest = select(func.max(statistics.c.until_at)).scalar_subquery()
        await connection.execute(statistics.delete().where(statistics.c.until_at < newest))
        await connection.execute(statistics.update().values(until_at=until_at))

    await database.write(move)


async def test_after_a_clock_was_ahead_no_number_is_below_zero(store: DatabaseStore, database: Database) -> None:
    await happened(store)
    await asyncio.sleep(0.02)
    while await store.add_up_statistics(OFTEN):
        pass
    await summed_until(database, 3_600_000)
    with pytest.raises(SumsAhead):
        await store.add_up_statistics(OFTEN)
    # This is in no sum, and what becomes of it is counted alone.
    order = an_order()
    await store.add_order(order, by("alice"), reply_of(order), None)
    await asyncio.sleep(0.005)
    await summed_until(database, 0)
    await asyncio.sleep(0.005)
    found = await store.find_orders(OrderFilter(status=OrderStatus.PLACED), PageRequest(10, None))
    assert 2 == len(found.orders)
    for each in found.orders:
        await store.cancel_order(CancelRequest(each.id, by("alice"), new_id(), LATER), reply_of, None)
    dashboard = await store.get_dashboard()
    assert 0 == dashboard.total.orders["placed"]
    assert 3 == to_dashboard_message(dashboard).total.orders["cancelled"]
    # The recipe of docs/operating.md.
    await database.write(lambda connection: connection.execute(statistics.delete()))
    assert {"placed": 0, "approved": 1, "shipped": 0, "delivered": 0, "cancelled": 3} == (
        await store.get_dashboard()
    ).total.orders


@pytest.mark.parametrize("when", [Interval(0.01, 60), Interval(3600, 0)])
async def test_what_may_still_change_is_not_added_up(store: DatabaseStore, when: Interval) -> None:
    assert not await store.add_up_statistics(when)
    await happened(store)
    assert not await store.add_up_statistics(when)


async def test_what_is_older_than_a_period_is_not_counted_in_it(store: DatabaseStore, database: Database) -> None:
    await happened(store)
    await asyncio.sleep(0.02)
    while await store.add_up_statistics(OFTEN):
        pass
    two_days = 2 * 86_400_000

    async def age(connection: AsyncConnection) -> None:
        """As if these sums had been made two days ago."""
        await connection.execute(statistics.update().values(until_at=statistics.c.until_at - two_days))

    await database.write(age)
    dashboard = await store.get_dashboard()
    assert dashboard.last_24_hours.since is not None
    assert dashboard.last_30_days.since is None
    # What the sums have is in the month alone; what is counted after them is in both.
    assert dashboard.last_24_hours.orders["placed"] + 3 == dashboard.last_30_days.orders["placed"]
