"""What has happened, numbered per order and written in the transaction of the change itself.

Everything goes to the audit log, with who did it; what others want to know of is an event as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.tables import audit_log, events
from payorder.domain.payment import Payment
from payorder.domain.states import OrderStatus, PaymentStatus

# Who acts when it is no caller: this service, on what the processor has answered.
SERVICE = "payorder"

_ADD_EVENT = insert(events)
_ADD_ENTRY = insert(audit_log)


@dataclass(frozen=True, slots=True)
class Change:
    """Of an order, payment or refund. What is new has no `from_state`."""

    kind: str
    object_id: str
    from_state: str | None
    to_state: str

    @property
    def event_type(self) -> str:
        return f"{self.kind}.{self.to_state}"


def of_settled(payment: Payment) -> list[Change]:
    """What the end of a payment changes."""
    changes = [Change("payment", payment.id, PaymentStatus.PROCESSING, payment.status)]
    if payment.status is PaymentStatus.SUCCEEDED:
        changes.append(Change("order", payment.order_id, OrderStatus.PLACED, OrderStatus.APPROVED))
    return changes


async def audit(
    connection: AsyncConnection, order_id: str, last_seq: int, at: int, actor: str, changes: Sequence[Change]
) -> None:
    """`last_seq` is the number of the order's newest entry, these included."""
    rows = [
        {
            "order_id": order_id,
            "seq": seq,
            "at": at,
            "actor": actor,
            "kind": change.kind,
            "object_id": change.object_id,
            "from_state": change.from_state,
            "to_state": change.to_state,
        }
        for seq, change in enumerate(changes, last_seq - len(changes) + 1)
    ]
    await connection.execute(_ADD_ENTRY, rows)


async def publish(
    connection: AsyncConnection, order_id: str, last_seq: int, at: int, changes: Sequence[Change]
) -> None:
    """`last_seq` is the number of the order's newest event, these included."""
    rows = [
        {
            "order_id": order_id,
            "seq": seq,
            "type": change.event_type,
            "subject_id": change.object_id,
            "created_at": at,
        }
        for seq, change in enumerate(changes, last_seq - len(changes) + 1)
    ]
    await connection.execute(_ADD_EVENT, rows)
