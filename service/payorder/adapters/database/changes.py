"""What has happened, and the events that tell others of it, written in the transaction of the change itself.

Everything also goes to the audit log (audit.py), with who did it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.ids import id_of, random_tail
from payorder.adapters.database.tables import events
from payorder.domain.payment import Payment
from payorder.domain.states import OrderStatus, PaymentStatus

_ADD_EVENT = insert(events)


@dataclass(frozen=True, slots=True)
class Change:
    """Of an order, payment or refund. What is new has no `from_state`; `detail` is the reason, if one was given."""

    kind: str
    object_id: str
    from_state: str | None
    to_state: str
    detail: str | None = None

    @property
    def event_type(self) -> str:
        return f"{self.kind}.{self.to_state}"


def of_claimed(payment: Payment) -> Change:
    return Change("payment", payment.id, None, payment.status)


def of_settled(payment: Payment) -> list[Change]:
    """What the end of a payment changes: the payment, and the order that it paid."""
    changes = [Change("payment", payment.id, PaymentStatus.PROCESSING, payment.status)]
    if payment.status is PaymentStatus.SUCCEEDED:
        changes.append(Change("order", payment.order_id, OrderStatus.PLACED, OrderStatus.APPROVED))
    return changes


async def publish(
    connection: AsyncConnection, order_id: str, last_seq: int, at: int, actor: str, changes: Sequence[Change]
) -> None:
    """`last_seq` is the number of the order's newest event, these included."""
    tail = random_tail()
    rows = [
        {
            "order_id": order_id,
            "seq": seq,
            "id": id_of(at, seq, tail),
            "type": change.event_type,
            "subject_id": change.object_id,
            "from_state": change.from_state,
            "actor": actor,
            "created_at": at,
        }
        for seq, change in enumerate(changes, last_seq - len(changes) + 1)
    ]
    await connection.execute(_ADD_EVENT, rows)
