"""What has happened, numbered per order, written in the transaction of the change itself."""

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.tables import events

_ADD = insert(events)


async def add(connection: AsyncConnection, order_id: str, last_seq: int, at: int, *happened: tuple[str, str]) -> None:
    """`happened` are pairs of type and subject; `last_seq` is the order's number after all of them."""
    first_seq = last_seq - len(happened) + 1
    rows = [
        {"order_id": order_id, "seq": first_seq + index, "type": kind, "subject_id": subject, "created_at": at}
        for index, (kind, subject) in enumerate(happened)
    ]
    await connection.execute(_ADD, rows)
