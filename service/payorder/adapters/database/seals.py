"""Statements that seal the audit log: a digest of what it holds between two moments, signed, once for all replicas."""

import hashlib
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import audit
from payorder.adapters.database.ids import first_id
from payorder.adapters.database.tables import audit_log, audit_seals
from payorder.domain.seal import BEGINNING, Seal
from payorder.ports.signing import Signer
from payorder.ports.store import Interval, SealMissing

# What was not sealed for long is sealed in parts.
_WINDOW_MILLISECONDS_MAX = 3_600_000
_READ_AT_ONCE = 5000

_NUMBERED = select(audit_seals).where(audit_seals.c.number == bindparam("wanted"))
_NEWEST = select(audit_seals).order_by(audit_seals.c.number.desc()).limit(1)
_HASHES = (
    select(audit_log.c.id, audit_log.c.hash)
    .where(audit_log.c.id > bindparam("after"), audit_log.c.id < bindparam("until"))
    .order_by(audit_log.c.id)
    .limit(_READ_AT_ONCE)
)
_ADD = insert(audit_seals)


class SealedBefore(Exception):
    """Another replica was first: the transaction is given up, and nothing is wrong."""


async def next_seal(connection: AsyncConnection, signer: Signer, when: Interval, known: Seal | None) -> Seal | None:
    """To be added, or None if it is too early for one or there is nothing to seal. Raises SealMissing."""
    if known is not None:
        await _refuse_without(connection, known)
    newest = (await connection.execute(_NEWEST)).one_or_none()
    number, from_at, prev_hash = 1, 0, BEGINNING
    if newest is not None:
        before = to_seal(newest)
        number, from_at, prev_hash = before.number + 1, before.until_at, before.hash
    until_at = await _until(connection, from_at, when)
    if until_at is None:
        return None
    count, digest = await digest_between(connection, from_at, until_at)
    unsigned = Seal(number, from_at, until_at, count, digest, prev_hash, signer.key_id)
    return replace(unsigned, signature=signer.sign(unsigned.text))


async def add(connection: AsyncConnection, seal: Seal) -> None:
    """Raises SealedBefore."""
    try:
        await connection.execute(_ADD, from_seal(seal))
    except IntegrityError:
        raise SealedBefore from None


async def digest_between(connection: AsyncConnection, from_at: int, until_at: int) -> tuple[int, bytes]:
    """How many entries were made then, and the digest of their hashes."""
    count, digest = 0, hashlib.sha256()
    after, until = first_id(from_at), first_id(until_at)
    while rows := (await connection.execute(_HASHES, {"after": after, "until": until})).all():
        for row in rows:
            digest.update(row.hash)
        count += len(rows)
        after = rows[-1].id
    return count, digest.digest()


def to_seal(row: Any) -> Seal:
    return Seal(**{name: getattr(row, name) for name in Seal.__slots__})


def from_seal(seal: Seal) -> dict[str, Any]:
    return {name: getattr(seal, name) for name in Seal.__slots__}


async def _refuse_without(connection: AsyncConnection, known: Seal) -> None:
    row = (await connection.execute(_NUMBERED, {"wanted": known.number})).one_or_none()
    if row is None or to_seal(row) != known:
        raise SealMissing


async def _until(connection: AsyncConnection, from_at: int, when: Interval) -> int | None:
    first = await audit.next_at(connection, from_at)
    settled_at = await audit.now(connection) - round(when.settled_after_seconds * 1000)
    if first is None or first >= settled_at or settled_at - from_at < when.every_seconds * 1000:
        return None
    return min(settled_at, first + _WINDOW_MILLISECONDS_MAX)
