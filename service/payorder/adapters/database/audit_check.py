"""Whether the audit log is what was written: chains, their heads, and seals, read in order and with bounded memory."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from sqlalchemy import bindparam, null, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import audit
from payorder.adapters.database.audit_chain import BEGINNING, CONTENT, content_of, hash_of
from payorder.adapters.database.ids import id_of
from payorder.adapters.database.seals import digest_between, to_seal
from payorder.adapters.database.tables import audit_heads, audit_log, audit_seals, orders
from payorder.domain import seal as seals
from payorder.domain.seal import Seal

_READ_AT_ONCE = 1000
# In an id there is no room for more milliseconds.
_TIMES_END = 1 << 48

_IN_ORDER = select(audit_log).order_by(audit_log.c.chain, audit_log.c.seq).limit(_READ_AT_ONCE)
_FURTHER = _IN_ORDER.where(
    tuple_(audit_log.c.chain, audit_log.c.seq) > tuple_(bindparam("of_chain"), bindparam("after"))
)
_HEADS_OF_ORDERS = select(orders.c.id, orders.c.audit_seq, orders.c.audit_hash, orders.c.status).where(
    orders.c.id.in_(bindparam("chains", expanding=True))
)
_HEADS_OF_CALLERS = select(audit_heads.c.chain, audit_heads.c.seq, audit_heads.c.hash, null()).where(
    audit_heads.c.chain.in_(bindparam("chains", expanding=True))
)
_AN_ENTRY = select(audit_log.c.seq).where(audit_log.c.chain == bindparam("of_chain")).limit(1)
# Beside each name its first entry, if that is there.
_ORDERS = (
    select(
        orders.c.id,
        select(audit_log.c.id).where(audit_log.c.chain == orders.c.id, audit_log.c.seq == 1).scalar_subquery(),
    )
    .where(orders.c.id > bindparam("after"))
    .order_by(orders.c.id)
    .limit(_READ_AT_ONCE)
)
_CALLERS = (
    select(
        audit_heads.c.chain,
        select(audit_log.c.id).where(audit_log.c.chain == audit_heads.c.chain, audit_log.c.seq == 1).scalar_subquery(),
    )
    .where(audit_heads.c.chain > bindparam("after"))
    .order_by(audit_heads.c.chain)
    .limit(_READ_AT_ONCE)
)

_SEALS = (
    select(audit_seals)
    .where(audit_seals.c.number > bindparam("after"))
    .order_by(audit_seals.c.number)
    .limit(_READ_AT_ONCE)
)


class SealKey(Protocol):
    def has_signed(self, text: bytes, signature: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What is known of seals from elsewhere than the database.

    `keys` have signed them, by their ids; without any, signatures are not looked at, and no seal has to be there.
    `hashes` are those of seals by their numbers. No entry may be unsealed that is older than `unsealed_seconds_max`.
    """

    keys: Mapping[str, SealKey]
    hashes: Mapping[int, bytes]
    unsealed_seconds_max: float


@dataclass(frozen=True, slots=True)
class AuditFault:
    """What is wrong: in which chain, or `seals`, and at which number."""

    chain: str
    seq: int
    what: str


@dataclass(slots=True)
class AuditCheck:
    """Counts what it reads; `sealed_until` is in epoch milliseconds."""

    connection: AsyncConnection
    elsewhere: Elsewhere
    entries: int = 0
    chains: int = 0
    seals: int = 0
    sealed_entries: int = 0
    sealed_until: int = 0
    _seal_number: int = 0
    _heads: dict[str, "_Head"] = field(default_factory=dict)

    async def faults(self) -> AsyncIterator[AuditFault]:
        """The connection must show one state of the database from the first statement to the last."""
        async for fault in self._of_chains():
            yield fault
        for statement in (_ORDERS, _CALLERS):
            async for fault in self._of_heads_without_chain(statement):
                yield fault
        async for fault in self._of_seals():
            yield fault
        if self.elsewhere.keys and await self._is_sealing_overdue():
            yield AuditFault("seals", self._seal_number + 1, "missing: what came after the one before it is not sealed")

    async def _of_chains(self) -> AsyncIterator[AuditFault]:
        chain = _Chain(None)
        rows = (await self.connection.execute(_IN_ORDER)).all()
        while rows:
            await self._read_heads([row.chain for row in rows])
            for row in rows:
                if row.chain != chain.name:
                    for fault in chain.end():
                        yield fault
                    chain = _Chain(row.chain, self._heads.get(row.chain))
                    self.chains += 1
                for fault in chain.add(row):
                    yield fault
            self.entries += len(rows)
            last = {"of_chain": rows[-1].chain, "after": rows[-1].seq}
            rows = (await self.connection.execute(_FURTHER, last)).all()
        for fault in chain.end():
            yield fault

    async def _read_heads(self, chains: Sequence[str]) -> None:
        self._heads.clear()
        wanted = {"chains": sorted(set(chains))}
        for statement in (_HEADS_OF_ORDERS, _HEADS_OF_CALLERS):
            for name, *head in await self.connection.execute(statement, wanted):
                self._heads[name] = _Head(*head)

    async def _of_heads_without_chain(self, statement: Any) -> AsyncIterator[AuditFault]:
        after = ""
        while rows := (await self.connection.execute(statement, {"after": after})).all():
            for name, first in rows:
                if first is None and await self._is_missing(name):
                    yield AuditFault(name, 1, "the whole chain is missing")
            after = rows[-1][0]

    async def _is_missing(self, chain: str) -> bool:
        return (await self.connection.execute(_AN_ENTRY, {"of_chain": chain})).one_or_none() is None

    async def _of_seals(self) -> AsyncIterator[AuditFault]:
        before: Seal | None = None
        missing = dict(self.elsewhere.hashes)
        while rows := (await self.connection.execute(_SEALS, {"after": self._seal_number})).all():
            for row in rows:
                seal = to_seal(row)
                if not _can_be(seal):
                    yield AuditFault("seals", seal.number, "it is not what was written")
                    continue
                for what in await self._faults_of(seal, before):
                    yield AuditFault("seals", seal.number, what)
                if missing.pop(seal.number, seal.hash) != seal.hash:
                    yield AuditFault("seals", seal.number, "it is not the one that was given")
                before = seal
                self.seals += 1
                self.sealed_entries += seal.entry_count
                self.sealed_until = seal.until_at
            self._seal_number = rows[-1].number
        for number in missing:
            yield AuditFault("seals", number, "missing, and it was given")

    async def _is_sealing_overdue(self) -> bool:
        first = await audit.next_at(self.connection, self.sealed_until)
        oldest = await audit.now(self.connection) - round(self.elsewhere.unsealed_seconds_max * 1000)
        return first is not None and first < oldest

    async def _faults_of(self, seal: Seal, before: Seal | None) -> list[str]:
        number, until_at, hash_ = (before.number, before.until_at, before.hash) if before else (0, 0, seals.BEGINNING)
        faults = []
        if seal.number != number + 1:
            faults.append(f"the seal before it is missing, {number + 1}")
        elif (seal.from_at, seal.prev_hash) != (until_at, hash_):
            faults.append("it does not follow on the seal before it")
        keys = self.elsewhere.keys
        key = keys.get(seal.key_id)
        if keys and (key is None or not key.has_signed(seal.text, seal.signature)):
            faults.append("its signature is of none of the given keys" if key is None else "its signature is wrong")
        if (seal.entry_count, seal.digest) != await digest_between(self.connection, seal.from_at, seal.until_at):
            faults.append("the entries of its time are not those that were sealed")
        return faults


def _can_be(seal: Seal) -> bool:
    """Other numbers could not be signed, or are no times."""
    return 0 <= seal.from_at < seal.until_at < _TIMES_END and seal.entry_count >= 0


class _Head(NamedTuple):
    """What an order, or the row of a caller, tells of its chain; of a caller there is no state."""

    seq: int
    hash: bytes
    state: str | None


class _Chain:
    """One chain, as far as it was read; before the first there is one without a name."""

    def __init__(self, name: str | None, head: _Head | None = None) -> None:
        self.name = name
        self._head = head
        self._seq = 0
        self._hash = BEGINNING
        self._state: str | None = None

    def add(self, row: Any) -> list[AuditFault]:
        faults = []
        if row.seq != self._seq + 1:
            faults.append(AuditFault(row.chain, self._seq + 1, f"missing, up to {row.seq - 1}"))
        elif row.prev_hash != self._hash:
            faults.append(AuditFault(row.chain, row.seq, "it does not follow on the entry before it"))
        if not _is_as_written(row):
            faults.append(AuditFault(row.chain, row.seq, "it is not what was written"))
        elif not row.id.startswith(id_of(row.at, row.seq, "")):
            faults.append(AuditFault(row.chain, row.seq, "its id is not of its time"))
        self._seq, self._hash = row.seq, row.hash
        if row.kind == "order":
            self._state = row.to_state
        return faults

    def end(self) -> list[AuditFault]:
        if self.name is None:
            return []
        if self._head is None:
            return [AuditFault(self.name, 1, "the chain belongs to no order and no caller")]
        if self._head.seq > self._seq:
            return [AuditFault(self.name, self._seq + 1, f"missing, up to {self._head.seq}")]
        if (self._head.seq, self._head.hash) != (self._seq, self._hash):
            return [AuditFault(self.name, self._seq, "it is not the entry that the head of the chain tells of")]
        if self._head.state not in (None, self._state):
            return [AuditFault(self.name, self._seq, "the order is not in the state that it tells of")]
        return []


def _is_as_written(row: Any) -> bool:
    content = content_of([getattr(row, name) for name in CONTENT])
    try:
        own = hash_of(prev_hash=row.prev_hash, content=content, entry_id=row.id, seq=row.seq, at=row.at)
    except OverflowError:  # Nothing below zero was ever written.
        return False
    return bool(row.hash == own)
