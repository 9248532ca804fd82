"""How the entries of the audit log are chained: each is hashed over itself and the one before it.

The entries of an order are a chain, whose head stands in the order; what concerns no order is in a chain of its caller.

content  SHA-256 of "payorder.audit.1" and the fields of CONTENT in that order: 00 for none, else 01, the length of the
         text in UTF-8 and the text.
hash     SHA-256 of prev_hash (32 bytes, zeros at the beginning of a chain), content (32), id (36, ASCII), seq and at.
id       of `at` and `seq` (ids.py): ids are in the order of the chain.

Lengths have 4 bytes, seq and at have 8, big-endian. hot_path.py does the same in SQL from `content` on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from payorder.adapters.database.changes import Change
from payorder.adapters.database.ids import id_of, random_tail
from payorder.domain.origin import Origin
from payorder.ports.audit import CallRecord

CONTENT = ("chain", "kind", "object_id", "from_state", "to_state", "outcome", "actor", "request_id", "detail")
BEGINNING = bytes(32)
_VERSION = b"payorder.audit.1"

# A row of the audit log by the names of its columns.
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain, and the database's time now."""

    seq: int
    hash: bytes
    at: int

    @classmethod
    def of_order(cls, row: Any) -> "Head":
        """Of a row with audit.HEAD."""
        return cls(row.audit_seq, row.audit_hash, row.audit_at)


def chain_of_caller(subject: str) -> str:
    return f"caller:{subject}"


def of_changes(order_id: str, head: Head, origin: Origin, changes: Sequence[Change]) -> list[Row]:
    """The rows of `changes`, as they follow on `head`."""
    return _following(head, [_told(order_id, change, origin) for change in changes])


def of_call(head: Head, call: CallRecord) -> Row:
    told = {
        "chain": chain_of_caller(call.origin.actor),
        "kind": "call",
        "object_id": call.method,
        "from_state": None,
        "to_state": None,
        "outcome": call.outcome,
        "actor": call.origin.actor,
        "request_id": call.origin.request_id,
        "detail": call.detail,
    }
    return _following(head, [told])[0]


def content_of_change(order_id: str, change: Change, origin: Origin) -> bytes:
    told = _told(order_id, change, origin)
    return content_of([told[name] for name in CONTENT])


def content_of(fields: Sequence[str | None]) -> bytes:
    """`fields` are those of CONTENT."""
    parts = [_VERSION]
    for field in fields:
        if field is None:
            parts.append(b"\x00")
        else:
            text = field.encode()
            parts += [b"\x01", len(text).to_bytes(4, "big"), text]
    return hashlib.sha256(b"".join(parts)).digest()


def hash_of(*, prev_hash: bytes, content: bytes, entry_id: str, seq: int, at: int) -> bytes:
    numbers = seq.to_bytes(8, "big") + at.to_bytes(8, "big")
    return hashlib.sha256(prev_hash + content + entry_id.encode() + numbers).digest()


def _following(head: Head, told: Sequence[dict[str, str | None]]) -> list[Row]:
    """`told` are the fields of CONTENT."""
    rows: list[Row] = []
    prev_hash, tail = head.hash, random_tail()
    for seq, fields in enumerate(told, head.seq + 1):
        entry_id = id_of(head.at, seq, tail)
        content = content_of([fields[name] for name in CONTENT])
        own = hash_of(prev_hash=prev_hash, content=content, entry_id=entry_id, seq=seq, at=head.at)
        rows.append({**fields, "id": entry_id, "seq": seq, "at": head.at, "prev_hash": prev_hash, "hash": own})
        prev_hash = own
    return rows


def _told(order_id: str, change: Change, origin: Origin) -> dict[str, str | None]:
    return {
        "chain": order_id,
        "kind": change.kind,
        "object_id": change.object_id,
        "from_state": change.from_state,
        "to_state": change.to_state,
        "outcome": "done",
        "actor": origin.actor,
        "request_id": origin.request_id,
        "detail": change.detail,
    }
