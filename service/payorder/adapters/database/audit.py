"""Statements that write the audit log, in the transaction of the change that an entry tells of."""

from collections.abc import Sequence

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.audit_chain import BEGINNING, Head, Row, chain_of_caller, of_call, of_changes
from payorder.adapters.database.changes import Change
from payorder.adapters.database.clock import now_milliseconds
from payorder.adapters.database.engine import Conflict
from payorder.adapters.database.ids import first_id
from payorder.adapters.database.tables import audit_heads, audit_log, orders
from payorder.domain.origin import Origin
from payorder.ports.audit import CallRecord

# For RETURNING, where an order is locked: what Head.of_order reads.
AT = now_milliseconds().label("audit_at")
HEAD = (orders.c.audit_seq, orders.c.audit_hash, AT)

_NOW = select(AT)
_NEXT_AT = select(audit_log.c.at).where(audit_log.c.id > bindparam("after")).order_by(audit_log.c.id).limit(1)
_ADD = insert(audit_log)
_MOVE_HEAD_OF_ORDER = (
    update(orders)
    .where(orders.c.id == bindparam("order_id"))
    .values(audit_seq=bindparam("seq"), audit_hash=bindparam("new_hash"), audit_previous=bindparam("previous"))
)
_HEAD_OF_CALLER = (
    select(audit_heads.c.seq, audit_heads.c.hash, AT)
    .where(audit_heads.c.chain == bindparam("of_chain"))
    .with_for_update()
)
_BEGIN_CHAIN = insert(audit_heads)
_MOVE_HEAD_OF_CALLER = (
    update(audit_heads)
    .where(audit_heads.c.chain == bindparam("of_chain"))
    .values(seq=bindparam("new_seq"), hash=bindparam("new_hash"))
)


async def beginning(connection: AsyncConnection) -> Head:
    """Of a chain that has no entry yet."""
    return Head(0, BEGINNING, await now(connection))


async def now(connection: AsyncConnection) -> int:
    """By the database's clock, in epoch milliseconds."""
    return int((await connection.execute(_NOW)).scalar_one())


async def next_at(connection: AsyncConnection, after_at: int) -> int | None:
    """When the first entry was made that was made then or later."""
    at: int | None = (await connection.execute(_NEXT_AT, {"after": first_id(after_at)})).scalar_one_or_none()
    return at


async def write(connection: AsyncConnection, rows: Sequence[Row]) -> None:
    """For an order that is added with its head; every other change uses `add`."""
    await connection.execute(_ADD, rows)


async def add(
    connection: AsyncConnection, order_id: str, head: Head, origin: Origin, changes: Sequence[Change]
) -> Head:
    """Write what changed; the order must be locked, and `head` be its own. Returns the head that it has now."""
    rows = of_changes(order_id, head, origin, changes)
    await write(connection, rows)
    newest = Head(rows[-1]["seq"], rows[-1]["hash"], head.at)
    moved = {"order_id": order_id, "seq": newest.seq, "new_hash": newest.hash, "previous": head.hash}
    await connection.execute(_MOVE_HEAD_OF_ORDER, moved)
    return newest


async def add_call(connection: AsyncConnection, call: CallRecord) -> None:
    chain = chain_of_caller(call.origin.actor)
    row = of_call(await _locked_head(connection, chain), call)
    await write(connection, [row])
    moved = {"of_chain": chain, "new_seq": row["seq"], "new_hash": row["hash"]}
    await connection.execute(_MOVE_HEAD_OF_CALLER, moved)


async def _locked_head(connection: AsyncConnection, chain: str) -> Head:
    row = (await connection.execute(_HEAD_OF_CALLER, {"of_chain": chain})).one_or_none()
    if row is not None:
        return Head(row.seq, row.hash, row.audit_at)
    try:
        await connection.execute(_BEGIN_CHAIN, {"chain": chain, "seq": 0, "hash": BEGINNING})
    except IntegrityError:
        raise Conflict from None  # Another call of the same caller has begun it in between.
    return await beginning(connection)
