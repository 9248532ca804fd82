"""Statements of administrators: everybody's orders, and the audit log."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Text, bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.ids import first_id
from payorder.adapters.database.rows import to_milliseconds, to_order, to_time
from payorder.adapters.database.tables import audit_log, orders
from payorder.domain.errors import EntryNotFound
from payorder.ports.admin import AuditEntry, EntryFilter, Found, OrderFilter
from payorder.ports.store import Page, PageRequest

# How many orders are looked at for a page: of what few fit there are more calls, none of which takes long.
LOOKED_AT_MAX = 10_000
# An order's id and its created_at are made one after the other, by one clock.
_APART_MILLISECONDS = 1000
# Before all ids, and behind them.
_FIRST, _LAST = "0", "g"


def _fits(columns: Any) -> tuple[ColumnElement[bool], ...]:
    """What is not given does not matter."""
    conditions: dict[str, tuple[Any, ColumnElement[bool]]] = {
        "of_status": (Text(), columns.status == bindparam("of_status")),
        "of_currency": (Text(), columns.currency == bindparam("of_currency")),
        "created_from": (BigInteger(), columns.created_at >= bindparam("created_from")),
        "created_below": (BigInteger(), columns.created_at < bindparam("created_below")),
        "total_from": (BigInteger(), columns.total_minor >= bindparam("total_from")),
        "total_to": (BigInteger(), columns.total_minor <= bindparam("total_to")),
    }
    return tuple(
        or_(bindparam(name, type_=kind, unique=False).is_(None), fits) for name, (kind, fits) in conditions.items()
    )


# Orders are looked at in the order of their ids, and no more than so many. With an index for each filter instead, every
# payment would have to write into that of the status.
_BETWEEN = (orders.c.id >= bindparam("from_id"), orders.c.id < bindparam("below"))
_OF_OWNER = orders.c.owner_sub == bindparam("of_owner")
_NEWEST = select(orders).where(*_BETWEEN).order_by(orders.c.id.desc()).limit(LOOKED_AT_MAX)
_LOOKED_AT = _NEWEST.subquery("looked_at")
_LOOKED_AT_OF_OWNER = _NEWEST.where(_OF_OWNER).subquery("looked_at")
_FITTING = select(_LOOKED_AT).where(*_fits(_LOOKED_AT.c)).order_by(_LOOKED_AT.c.id.desc()).limit(bindparam("rows"))
_FITTING_OF_OWNER = (
    select(_LOOKED_AT_OF_OWNER)
    .where(*_fits(_LOOKED_AT_OF_OWNER.c))
    .order_by(_LOOKED_AT_OF_OWNER.c.id.desc())
    .limit(bindparam("rows"))
)
# The last that was looked at, if there were so many.
_END = select(orders.c.id).where(*_BETWEEN).order_by(orders.c.id.desc()).offset(LOOKED_AT_MAX - 1).limit(1)
_END_OF_OWNER = _END.where(_OF_OWNER)

_WANTED = (
    select(audit_log)
    .where(audit_log.c.id > bindparam("from_id"), audit_log.c.id < bindparam("below"))
    .limit(bindparam("rows"))
)
_ENTRIES = _WANTED.order_by(audit_log.c.id.desc())
# Of which an order has few. Their numbers are in the order of their ids.
_ENTRIES_OF_ORDER = _WANTED.where(audit_log.c.chain == bindparam("of_chain")).order_by(audit_log.c.seq.desc())
_ENTRY = select(audit_log).where(audit_log.c.id == bindparam("entry_id"))


async def find_orders(connection: AsyncConnection, wanted: OrderFilter, page: PageRequest) -> Found:
    is_of_all = wanted.owner is None
    values = _values(wanted, page)
    rows = (await connection.execute(_FITTING if is_of_all else _FITTING_OF_OWNER, values)).all()
    found = [to_order(row) for row in rows[: page.size]]
    if len(rows) > page.size:
        return Found(found, found[-1].id)
    end = await connection.execute(_END if is_of_all else _END_OF_OWNER, values)
    return Found(found, end.scalar_one_or_none())


def _values(wanted: OrderFilter, page: PageRequest) -> dict[str, Any]:
    below = _LAST if wanted.created_before is None else _first_id(wanted.created_before, _APART_MILLISECONDS)
    return {
        "below": below if page.after is None else min(below, page.after),
        "from_id": _FIRST if wanted.created_after is None else _first_id(wanted.created_after, -_APART_MILLISECONDS),
        "of_owner": wanted.owner,
        "of_status": wanted.status,
        "of_currency": wanted.currency,
        "created_from": wanted.created_after and to_milliseconds(wanted.created_after),
        "created_below": wanted.created_before and to_milliseconds(wanted.created_before),
        "total_from": wanted.amount_minor_min,
        "total_to": wanted.amount_minor_max,
        "rows": page.size + 1,
    }


async def list_entries(connection: AsyncConnection, wanted: EntryFilter, page: PageRequest) -> Page[AuditEntry]:
    below = _LAST if wanted.before is None else _first_id(wanted.before)
    values = {
        "below": below if page.after is None else min(below, page.after),
        "from_id": _FIRST if wanted.after is None else _first_id(wanted.after),
        "of_chain": wanted.order_id,
        "rows": page.size + 1,
    }
    rows = await connection.execute(_ENTRIES if wanted.order_id is None else _ENTRIES_OF_ORDER, values)
    return Page.of([_to_entry(row) for row in rows], page.size)


async def get_entry(connection: AsyncConnection, entry_id: str) -> AuditEntry:
    row = (await connection.execute(_ENTRY, {"entry_id": entry_id})).one_or_none()
    if row is None:
        raise EntryNotFound
    return _to_entry(row)


def _first_id(at: datetime, later_milliseconds: int = 0) -> str:
    return first_id(max(0, to_milliseconds(at) + later_milliseconds))


def _to_entry(row: Any) -> AuditEntry:
    values = {name: getattr(row, name) for name in AuditEntry.__slots__}
    return AuditEntry(**values | {"at": to_time(row.at)})
