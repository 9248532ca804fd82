"""Numbers out of the audit log, added up at intervals; only what came since the newest sum is counted when asked.

A sum holds everything until its moment: what happened between two moments is the difference of two sums. Nothing is
counted in a payment's own transaction.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, bindparam, case, delete, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import audit
from payorder.adapters.database.ids import first_id
from payorder.adapters.database.rows import to_time
from payorder.adapters.database.tables import audit_log, payments, refunds, statistics
from payorder.domain.money import Currency
from payorder.domain.states import OrderStatus, PaymentStatus
from payorder.ports.admin import Dashboard, MoneyTotal, Statistics

# A row of the table by the names of its columns.
Row = dict[str, Any]
_DAY_MILLISECONDS = 86_400_000
_ADDED_AT_ONCE = 10_000
# Amounts are added up in two parts: so many of the largest are more than an integer of SQLite can be.
_PART = 1_000_000_000

_NEWEST = select(statistics.c.until_at).order_by(statistics.c.until_at.desc()).limit(1)
_NEWEST_BEFORE = _NEWEST.where(statistics.c.until_at <= bindparam("moment"))
_SUMS = select(statistics).where(statistics.c.until_at == bindparam("moment"))
_ADD = insert(statistics)
_OLDEST = select(statistics.c.until_at).order_by(statistics.c.until_at).limit(1)
_FORGET = delete(statistics).where(statistics.c.until_at == bindparam("moment"))
# So many entries at a time, so that no statement is long, and added up by the database, so that no call here waits.
_ENTRIES = (
    select(audit_log.c.id, audit_log.c.kind, audit_log.c.object_id, audit_log.c.from_state, audit_log.c.to_state)
    .where(audit_log.c.id > bindparam("after"), audit_log.c.id < bindparam("until"))
    .order_by(audit_log.c.id)
    .limit(_ADDED_AT_ONCE)
    .subquery("looked_at")
)
_DECLINE_CODE = case((and_(_ENTRIES.c.kind == "payment", _ENTRIES.c.to_state == "failed"), payments.c.decline_code))
_STEP = (
    _ENTRIES.c.kind,
    func.coalesce(_ENTRIES.c.from_state, "").label("from_state"),
    _ENTRIES.c.to_state,
    func.coalesce(payments.c.currency, "").label("currency"),
    func.coalesce(payments.c.currency_digits, 0).label("currency_digits"),
    func.coalesce(_DECLINE_CODE, "").label("decline_code"),
)
# Where it is shown; what others have tried to pay does not move.
_MONEY = case(
    (_ENTRIES.c.to_state == "succeeded", func.coalesce(refunds.c.amount_minor, payments.c.amount_minor, 0)), else_=0
)
# An entry tells of a payment, or of a refund of one; or else of an order, which is no payment's id.
_ADDED = (
    select(
        *_STEP,
        func.count().label("times"),
        func.sum(_MONEY // _PART).label("amount_high"),
        func.sum(_MONEY % _PART).label("amount_low"),
        func.max(_ENTRIES.c.id).label("last_id"),
    )
    .select_from(
        _ENTRIES.outerjoin(refunds, and_(_ENTRIES.c.kind == "refund", refunds.c.id == _ENTRIES.c.object_id)).outerjoin(
            payments, payments.c.id == func.coalesce(refunds.c.payment_id, _ENTRIES.c.object_id)
        )
    )
    .group_by(*_STEP)
)


class AddedUpBefore(Exception):
    """Another replica was first: the transaction is given up, and nothing is wrong."""


class SumsAhead(Exception):
    """The newest sum is later than now: the database's clock was set back, and what comes until then is in no sum."""


@dataclass(frozen=True, slots=True)
class Step:
    """Of what a sum is kept: a change of state of one kind of thing, of payments and refunds by their money."""

    kind: str
    from_state: str
    to_state: str
    currency: str = ""
    currency_digits: int = 0
    decline_code: str = ""


@dataclass(slots=True)
class Sums:
    """How often each step was made, and how many minor units of money that was."""

    counts: Counter[Step] = field(default_factory=Counter)
    amounts: Counter[Step] = field(default_factory=Counter)

    def add(self, step: Step, count: int, amount_minor: int) -> None:
        self.counts[step] += count
        self.amounts[step] += amount_minor

    def without(self, earlier: "Sums") -> "Sums":
        return Sums(self.counts - earlier.counts, self.amounts - earlier.amounts)


async def next_sum(connection: AsyncConnection, every_milliseconds: int, settled_after_milliseconds: int) -> list[Row]:
    """The rows of the next sum, if it is time for one. Raises SumsAhead."""
    newest, now = await _newest(connection), await audit.now(connection)
    if newest > now:
        raise SumsAhead
    first = await audit.next_at(connection, newest)
    if first is None:
        return []
    until = (first // every_milliseconds + 1) * every_milliseconds
    if until > now - settled_after_milliseconds:
        return []
    sums = await _sums_until(connection, newest)
    await _count(connection, sums, newest, until)
    # There are none as long as there were only calls, which are not counted.
    return [_from_step(step, until, sums) for step in sums.counts]


async def add(connection: AsyncConnection, rows: Sequence[Row]) -> None:
    """Raises AddedUpBefore."""
    if await _newest(connection) >= rows[0]["until_at"]:
        raise AddedUpBefore
    try:
        await connection.execute(_ADD, rows)
    except IntegrityError:
        raise AddedUpBefore from None
    await _forget_one(connection)


async def _forget_one(connection: AsyncConnection) -> None:
    """With each new sum the oldest goes, if no dashboard can need it."""
    now = await audit.now(connection)
    oldest = (await connection.execute(_OLDEST)).scalar_one()
    needed = (await connection.execute(_NEWEST_BEFORE, {"moment": now - 31 * _DAY_MILLISECONDS})).scalar_one_or_none()
    if needed is not None and oldest < needed:
        await connection.execute(_FORGET, {"moment": oldest})


async def dashboard(connection: AsyncConnection) -> Dashboard:
    """The connection must show one state of the database."""
    now = await audit.now(connection)
    newest = await _newest(connection)
    total = await _sums_until(connection, newest)
    await _count(connection, total, newest, now)
    return Dashboard(
        to_time(now),
        _now_in_each_state(_told(None, total), total),
        await _since(connection, total, now - _DAY_MILLISECONDS),
        await _since(connection, total, now - 30 * _DAY_MILLISECONDS),
    )


async def _newest(connection: AsyncConnection) -> int:
    return (await connection.execute(_NEWEST)).scalar_one_or_none() or 0


async def _since(connection: AsyncConnection, total: Sums, moment: int) -> Statistics:
    since = (await connection.execute(_NEWEST_BEFORE, {"moment": moment})).scalar_one_or_none()
    if since is None:
        return _told(None, total)
    return _told(since, total.without(await _sums_until(connection, since)))


async def _sums_until(connection: AsyncConnection, moment: int) -> Sums:
    sums = Sums()
    for row in await connection.execute(_SUMS, {"moment": moment}):
        step = Step(*(getattr(row, name) for name in Step.__slots__))
        sums.add(step, row.times, int(row.amount_minor))
    return sums


async def _count(connection: AsyncConnection, sums: Sums, from_at: int, until_at: int) -> None:
    """Add what happened between the two."""
    after, until = first_id(from_at), first_id(until_at)
    while rows := (await connection.execute(_ADDED, {"after": after, "until": until})).all():
        for row in rows:
            if row.kind != "call":
                step = Step(*(getattr(row, name) for name in Step.__slots__))
                sums.add(step, row.times, int(row.amount_high) * _PART + int(row.amount_low))
        after = max(row.last_id for row in rows)


def _from_step(step: Step, until_at: int, sums: Sums) -> Row:
    names = {name: getattr(step, name) for name in Step.__slots__}
    return {**names, "until_at": until_at, "times": sums.counts[step], "amount_minor": str(sums.amounts[step])}


def _told(since: int | None, sums: Sums) -> Statistics:
    """How many came into each state, and the money that moved."""
    told = Statistics(
        since=None if since is None else to_time(since),
        orders=dict.fromkeys(OrderStatus, 0),
        payments=dict.fromkeys(PaymentStatus, 0),
    )
    for step, count in sums.counts.items():
        if step.kind == "order":
            told.orders[step.to_state] += count
        elif step.kind == "payment":
            told.payments[step.to_state] += count
        if step.decline_code:
            told.decline_codes[step.decline_code] = told.decline_codes.get(step.decline_code, 0) + count
        if step.to_state == "succeeded":
            total = told.totals.setdefault(Currency(step.currency, step.currency_digits), MoneyTotal())
            if step.kind == "payment":
                total.taken_minor += sums.amounts[step]
            else:
                total.refunded_minor += sums.amounts[step]
    return told


def _now_in_each_state(told: Statistics, sums: Sums) -> Statistics:
    """What came into a state and did not leave it; of what came while the clock was wrong only the latter is known."""
    for step, count in sums.counts.items():
        states = {"order": told.orders, "payment": told.payments}.get(step.kind)
        if states is not None and step.from_state:
            states[step.from_state] -= count
    for states in (told.orders, told.payments):
        states.update({state: max(0, count) for state, count in states.items()})
    return told
