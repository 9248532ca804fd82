"""What was answered to calls with an idempotency key that create or change an order."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.engine import Conflict
from payorder.adapters.database.rows import to_milliseconds, to_time
from payorder.adapters.database.tables import keyed_replies
from payorder.domain.idempotency import IdempotencyKey, Replay, Reply, has_expired

_OF_USE = (
    keyed_replies.c.caller == bindparam("of_caller"),
    keyed_replies.c.method == bindparam("of_method"),
    keyed_replies.c.idempotency_key == bindparam("key"),
)
_USED_BY = select(keyed_replies).where(*_OF_USE)
_FORGET = delete(keyed_replies).where(*_OF_USE)
_KEEP = insert(keyed_replies)


@dataclass(frozen=True, slots=True)
class Use:
    """A key as a caller uses it: it belongs to the caller and the method."""

    caller: str
    method: str
    key: IdempotencyKey
    at: datetime

    @property
    def names(self) -> dict[str, str]:
        return {"of_caller": self.caller, "of_method": self.method, "key": self.key.key}


async def find(connection: AsyncConnection, use: Use) -> Replay | None:
    """Raises IdempotencyKeyReused."""
    row = (await connection.execute(_USED_BY, use.names)).one_or_none()
    if row is None:
        return None
    if has_expired(to_time(row.created_at), use.at):
        await connection.execute(_FORGET, use.names)
        return None
    use.key.refuse_other_request(row.fingerprint)
    return Replay(row.order_id, Reply(0, row.reply))


async def keep(connection: AsyncConnection, use: Use, order_id: str, reply: Reply) -> None:
    row = {
        "caller": use.caller,
        "method": use.method,
        "idempotency_key": use.key.key,
        "fingerprint": use.key.fingerprint,
        "order_id": order_id,
        "reply": reply.body,
        "created_at": to_milliseconds(use.at),
    }
    try:
        await connection.execute(_KEEP, row)
    except IntegrityError:
        raise Conflict from None  # The same key came in between.
