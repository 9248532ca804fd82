# ruff: noqa: S608 - the statements are put together from this file alone
"""Whatever is changed in the audit log, added to it or taken out, by somebody whom no trigger holds back, is found."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from conftest import ENGINES, NewMigrated
from payorder.adapters.database import audit
from payorder.adapters.database.audit_chain import CONTENT, Head, content_of, hash_of, of_call
from payorder.adapters.database.audit_check import AuditCheck, AuditFault, Elsewhere
from payorder.adapters.database.engine import Database
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import audit_log, audit_seals, metadata
from payorder.adapters.signing import Ed25519Signer, PublicKey
from payorder.adapters.system import new_id
from payorder.domain.seal import Seal
from payorder.ports.audit import CallRecord
from payorder.ports.store import Cancelled, CancelRequest, Interval, SealMissing
from payorder.workflows.seal_audit_log import SealAuditLog
from support.records import LATER, NO_LIMITS, a_payment, an_order, by, failed, reply_of, succeeded
from support.service import settings_of
from support.signing_keys import new_signing_key

AT_ONCE = Interval(every_seconds=0, settled_after_seconds=0)
NO_TRIGGERS = {
    "sqlite": [
        f"DROP TRIGGER {table}_no_{what}" for table in ("audit_log", "audit_seals") for what in ("update", "delete")
    ],
    "postgresql": ["SET LOCAL session_replication_role = replica"],
}
# Of the order that was refunded: 1 placed, 2 paying, 3 failed, 4 paying, 5 succeeded, 6 approved, 7 cancelled, 8 and 9
# its refund. The numbers of the other orders end at 1 and 6.
REFUNDED, PAID, PLACED, CALLER = "refunded", "paid", "placed", "caller:root"


@dataclass(frozen=True, slots=True)
class Log:
    """An audit log of some length, `chains` by what happened to them, and the key that has sealed most of it."""

    database: Database
    chains: dict[str, str]
    key_path: Path

    @property
    def engine(self) -> str:
        return self.database.url.get_backend_name()

    def named(self, words: str) -> str:
        """With the ids of chains in the place of their names."""
        for name, chain in self.chains.items():
            words = words.replace(f"'{name}'", f"'{chain}'")
        return words

    def check(self, connection: AsyncConnection) -> AuditCheck:
        return AuditCheck(connection, self.elsewhere({}))

    def elsewhere(self, hashes: Mapping[int, bytes], unsealed_seconds_max: float = 3600) -> Elsewhere:
        key = Ed25519Signer.read(self.key_path).public_key
        return Elsewhere({key.key_id: key}, hashes, unsealed_seconds_max)


async def paid(store: DatabaseStore, *, with_failure: bool = False) -> str:
    order = an_order()
    await store.add_order(order, by("alice"), reply_of(order), None)
    for end in (failed, succeeded) if with_failure else (succeeded,):
        payment = a_payment(order)
        assert await store.claim(payment, by("alice"), None) is None
        await store.settle(end(payment), reply_of(end(payment)), LATER)
    return order.id


async def refunded(store: DatabaseStore) -> str:
    order_id = await paid(store, with_failure=True)
    request = CancelRequest(order_id, by("alice"), new_id(), LATER)
    cancelled = await store.cancel_order(request, reply_of, None)
    assert isinstance(cancelled, Cancelled)
    assert cancelled.refund is not None
    await store.settle_refund(cancelled.refund, "re_1", LATER)
    return order_id


async def placed(store: DatabaseStore) -> str:
    order = an_order()
    await store.add_order(order, by("alice"), reply_of(order), None)
    return order.id


@pytest.fixture(scope="module", params=ENGINES)
async def log(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_migrated: NewMigrated
) -> AsyncIterator[Log]:
    """No test changes it: what is done to it is rolled back."""
    folder = tmp_path_factory.mktemp("audit")
    database = Database(await new_migrated(request.param, folder), pool_size=2, pool_timeout_seconds=5)
    yield await written(database, new_signing_key(folder / "key.pem"))
    await database.close()


async def written(database: Database, key_path: Path) -> Log:
    store, signer = store_on(database), Ed25519Signer.read(key_path)
    chains = {REFUNDED: await refunded(store), CALLER: CALLER}
    for outcome in ("done", "refused"):
        await store.record_call(CallRecord("AdminService/ListOrders", outcome, by("root"), "{}"))
    assert await sealed(store, signer)
    chains[PLACED] = await placed(store)
    assert await sealed(store, signer)
    # Nobody has signed this yet.
    chains[PAID] = await paid(store)
    return Log(database, chains, key_path)


def store_on(database: Database) -> DatabaseStore:
    return DatabaseStore(database, reconcile_after_seconds=25, limits=NO_LIMITS, on_change=lambda *_: None)


async def sealed(store: DatabaseStore, signer: Ed25519Signer) -> Seal | None:
    """What was written in this very millisecond is not sealed."""
    await asyncio.sleep(0.005)
    return await store.seal_audit_log(signer, AT_ONCE, known=None)


class RolledBack(Exception):
    """Ends a transaction that is not to be kept."""


async def faults_after(log: Log, *statements: str, forge: Sequence[tuple[str, int]] = ()) -> list[AuditFault]:
    """What is found in a log to which somebody did this; the entries in `forge` get hashes that fit them."""
    found: list[AuditFault] = []

    async def tamper(connection: AsyncConnection) -> None:
        for statement in (*NO_TRIGGERS[log.engine], *statements):
            await connection.execute(text(log.named(statement)))
        for name, seq in forge:
            await forged(connection, log.chains[name], seq)
        found.extend([fault async for fault in log.check(connection).faults()])
        raise RolledBack

    with pytest.raises(RolledBack):
        await log.database.write(tamper)
    return found


async def forged(connection: AsyncConnection, chain: str, seq: int) -> None:
    """Give an entry the hash that fits what it now says, on the hash of the one before it."""
    of_chain = select(audit_log).where(audit_log.c.chain == chain)
    before = (await connection.execute(of_chain.where(audit_log.c.seq == seq - 1))).one()
    row = (await connection.execute(of_chain.where(audit_log.c.seq == seq))).one()
    content = content_of([getattr(row, name) for name in CONTENT])
    own = hash_of(prev_hash=before.hash, content=content, entry_id=row.id, seq=seq, at=row.at)
    change = audit_log.update().where(audit_log.c.id == row.id).values(prev_hash=before.hash, hash=own)
    await connection.execute(change)


async def test_nothing_is_found_in_what_was_written(log: Log) -> None:
    async with log.database.snapshot() as connection:
        check = log.check(connection)
        assert [] == [fault async for fault in check.faults()]
    assert (16, 4, 2, 12) == (check.entries, check.chains, check.seals, check.sealed_entries)


CHANGED_TO = {
    "id": "substr(id, 1, 24) || 'abcdefabcdef'",
    "chain": "'nobody'",
    "seq": "70",
    "at": "at + 1",
    "actor": "'mallory'",
    "request_id": "'forged'",
    "kind": "CASE kind WHEN 'order' THEN 'refund' ELSE 'order' END",
    "object_id": "'placed'",
    "from_state": "'shipped'",
    "to_state": "'delivered'",
    "outcome": "'refused'",
    "detail": "'because'",
    "prev_hash": "hash",
    "hash": "prev_hash",
}


def test_every_column_is_tried() -> None:
    assert set(audit_log.columns.keys()) == set(CHANGED_TO)


@pytest.mark.parametrize("column", CHANGED_TO)
@pytest.mark.parametrize(("name", "seq"), [(REFUNDED, 3), (REFUNDED, 9), (PAID, 4)], ids=str)
async def test_a_changed_entry_is_found(log: Log, column: str, name: str, seq: int) -> None:
    """In the midst of a chain and at its end, sealed and not."""
    change = f"UPDATE audit_log SET {column} = {CHANGED_TO[column]} WHERE chain = '{name}' AND seq = {seq}"
    assert log.chains[name] in {fault.chain for fault in await faults_after(log, change)}


TAKEN_OUT = {
    "the first": ("DELETE FROM audit_log WHERE chain = 'paid' AND seq = 1", (PAID, 1)),
    "one in the middle": ("DELETE FROM audit_log WHERE chain = 'paid' AND seq = 3", (PAID, 3)),
    "the newest": ("DELETE FROM audit_log WHERE chain = 'paid' AND seq = 4", (PAID, 4)),
    "the newest two": ("DELETE FROM audit_log WHERE chain = 'paid' AND seq >= 3", (PAID, 3)),
    "a whole chain": ("DELETE FROM audit_log WHERE chain = 'paid'", (PAID, 1)),
    "a chain of one": ("DELETE FROM audit_log WHERE chain = 'placed'", (PLACED, 1)),
    "the newest of a caller": ("DELETE FROM audit_log WHERE chain = 'caller:root' AND seq = 2", (CALLER, 2)),
    "all of a caller": ("DELETE FROM audit_log WHERE chain = 'caller:root'", (CALLER, 1)),
    "everything": ("DELETE FROM audit_log", (REFUNDED, 1)),
}


@pytest.mark.parametrize(("statement", "where"), TAKEN_OUT.values(), ids=TAKEN_OUT)
async def test_an_entry_that_was_taken_out_is_found(log: Log, statement: str, where: tuple[str, int]) -> None:
    name, seq = where
    assert (log.chains[name], seq) in {(fault.chain, fault.seq) for fault in await faults_after(log, statement)}


async def test_two_entries_that_changed_places_are_found(log: Log) -> None:
    swap = [
        f"UPDATE audit_log SET seq = {to} WHERE chain = 'paid' AND seq = {seq}"
        for seq, to in ((2, 99), (3, 2), (99, 3))
    ]
    found = {(fault.chain, fault.seq) for fault in await faults_after(log, *swap)}
    assert {(log.chains[PAID], 2), (log.chains[PAID], 3)} <= found


FORGE = "UPDATE audit_log SET actor = 'mallory' WHERE chain = '{}' AND seq = {}"


async def test_a_forged_entry_is_found_by_the_next(log: Log) -> None:
    found = await faults_after(log, FORGE.format(PAID, 3), forge=[(PAID, 3)])
    assert [(log.chains[PAID], 4)] == [(fault.chain, fault.seq) for fault in found]


async def test_a_forged_end_of_a_chain_is_found_by_its_head(log: Log) -> None:
    found = await faults_after(log, FORGE.format(PAID, 3), forge=[(PAID, 3), (PAID, 4)])
    assert [(log.chains[PAID], 4)] == [(fault.chain, fault.seq) for fault in found]


async def test_a_chain_forged_with_its_head_is_found_by_the_seal(log: Log) -> None:
    head = "SELECT hash FROM audit_log WHERE chain = 'caller:root' AND seq = 2"
    after = f"UPDATE audit_heads SET hash = ({head}) WHERE chain = 'caller:root'"

    found: list[AuditFault] = []

    async def tamper(connection: AsyncConnection) -> None:
        for statement in (*NO_TRIGGERS[log.engine], FORGE.format(CALLER, 2)):
            await connection.execute(text(statement))
        await forged(connection, CALLER, 2)
        await connection.execute(text(after))
        found.extend([fault async for fault in log.check(connection).faults()])
        raise RolledBack

    with pytest.raises(RolledBack):
        await log.database.write(tamper)
    assert [AuditFault("seals", 1, "the entries of its time are not those that were sealed")] == found


async def test_an_entry_of_nobody_is_found(log: Log) -> None:
    """Added, not changed: as if it had always been there."""
    columns = ", ".join(name for name in map(str, audit_log.columns.keys()) if name not in ("id", "chain", "seq"))
    add = (
        f"INSERT INTO audit_log (id, chain, seq, {columns})"
        f" SELECT substr(id, 1, 24) || 'abcdefabcdef', 'nobody', 1, {columns}"
        " FROM audit_log WHERE chain = 'paid' AND seq = 1"
    )
    assert ("nobody", 1) in {(fault.chain, fault.seq) for fault in await faults_after(log, add)}


async def test_an_entry_of_nobody_at_all_is_found(log: Log) -> None:
    """Its chain has no name that sorts behind another."""
    add = (
        "INSERT INTO audit_log (id, chain, seq, at, actor, kind, object_id, to_state, outcome, prev_hash, hash)"
        " SELECT substr(id, 1, 24) || 'abcdefabcdef', '', 1, at, actor, kind, object_id, to_state, outcome, hash, hash"
        " FROM audit_log WHERE chain = 'paid' AND seq = 1"
    )
    assert AuditFault("", 1, "the chain belongs to no order and no caller") in await faults_after(log, add)


@pytest.mark.parametrize("column", ["at", "seq"])
async def test_a_number_that_none_can_be_is_found(log: Log, column: str) -> None:
    found = await faults_after(log, f"UPDATE audit_log SET {column} = -1 WHERE chain = 'paid' AND seq = 2")
    assert "it is not what was written" in {fault.what for fault in found}


@pytest.mark.parametrize("column", ["from_at", "until_at", "entry_count"])
@pytest.mark.parametrize("value", [-1, 2**63 - 1])
async def test_a_number_that_no_seal_has_is_found(log: Log, column: str, value: int) -> None:
    found = await faults_after(log, f"UPDATE audit_seals SET {column} = {value} WHERE number = 1")
    assert {"seals"} == {fault.chain for fault in found}


async def test_an_order_in_another_state_than_the_log_tells_is_found(log: Log) -> None:
    found = await faults_after(
        log, "UPDATE orders SET status = 'cancelled', active_payment_id = NULL WHERE id = 'placed'"
    )
    assert [AuditFault(log.chains[PLACED], 1, "the order is not in the state that it tells of")] == found


HEADS = {
    "the hash of an order's": ("UPDATE orders SET audit_hash = audit_previous WHERE id = 'paid'", PAID),
    "the number of an order's": ("UPDATE orders SET audit_seq = 3 WHERE id = 'paid'", PAID),
    "the hash of a caller's": ("UPDATE audit_heads SET hash = key", CALLER),
    "a caller's whole head": ("DELETE FROM audit_heads", CALLER),
}


@pytest.mark.parametrize(("statement", "name"), HEADS.values(), ids=HEADS)
async def test_a_changed_head_is_found(log: Log, statement: str, name: str) -> None:
    zeros = "zeroblob(32)" if log.engine == "sqlite" else "'zeros'::bytea"
    found = await faults_after(log, statement.replace("= key", f"= {zeros}"))
    assert {log.chains[name]} == {fault.chain for fault in found}


SEALS = {
    "number": "number + 5",
    "from_at": "from_at - 1",
    "until_at": "until_at - 1",
    "entry_count": "entry_count + 1",
    "digest": "prev_hash",
    "prev_hash": "digest",
    "key_id": "'0123456789abcdef'",
    "signature": "prev_hash",
}


def test_every_column_of_a_seal_is_tried() -> None:
    assert set(audit_seals.columns.keys()) == set(SEALS)


@pytest.mark.parametrize("column", SEALS)
@pytest.mark.parametrize("number", [1, 2])
async def test_a_changed_seal_is_found(log: Log, column: str, number: int) -> None:
    if (column, number) == ("from_at", 1):
        number = 2  # The first begins with time itself.
    found = await faults_after(log, f"UPDATE audit_seals SET {column} = {SEALS[column]} WHERE number = {number}")
    assert {"seals"} == {fault.chain for fault in found}


async def test_a_seal_that_was_taken_out_is_found_by_the_next(log: Log) -> None:
    assert [AuditFault("seals", 2, "the seal before it is missing, 1")] == await faults_after(
        log, "DELETE FROM audit_seals WHERE number = 1"
    )


SEALS_GONE = {"the newest": ("number = 3", 3), "all but the first": ("number > 1", 2), "all": ("number > 0", 1)}


@pytest.mark.parametrize(("of_which", "number"), SEALS_GONE.values(), ids=SEALS_GONE)
async def test_the_newest_seals_are_missed_when_they_are_gone(
    database: Database, tmp_path: Path, of_which: str, number: int
) -> None:
    """By what they had sealed, as soon as that is old, and by whoever has kept the hash of one."""
    log = await written(database, new_signing_key(tmp_path / "key.pem"))
    newest = await sealed(store_on(database), Ed25519Signer.read(log.key_path))
    assert newest is not None
    kept, at_once = log.elsewhere({3: newest.hash}), log.elsewhere({}, unsealed_seconds_max=0)
    assert [[], []] == [await faults_in(database, elsewhere) for elsewhere in (kept, at_once)]
    await without_triggers(database, f"DELETE FROM audit_seals WHERE {of_which}")
    assert [AuditFault("seals", 3, "missing, and it was given")] == await faults_in(database, kept)
    unsealed = AuditFault("seals", number, "missing: what came after the one before it is not sealed")
    assert [unsealed] == await faults_in(database, at_once)
    # Without a key nobody has to seal.
    assert [] == await faults_in(database, Elsewhere({}, {}, 0))


async def test_a_seal_that_was_made_anew_is_not_the_one_that_was_kept(log: Log) -> None:
    assert [AuditFault("seals", 2, "it is not the one that was given")] == await faults_in(
        log.database, log.elsewhere({2: bytes(32)})
    )


async def faults_in(database: Database, elsewhere: Elsewhere) -> list[AuditFault]:
    async with database.snapshot() as connection:
        return [fault async for fault in AuditCheck(connection, elsewhere).faults()]


async def without_triggers(database: Database, statement: str) -> None:
    async def tamper(connection: AsyncConnection) -> None:
        for each in (*NO_TRIGGERS[database.url.get_backend_name()], statement):
            await connection.execute(text(each))

    await database.write(tamper)


# Sealing


async def test_a_replica_whose_last_seal_is_gone_signs_nothing_more(database: Database, tmp_path: Path) -> None:
    store, signer = store_on(database), Ed25519Signer.read(new_signing_key(tmp_path / "key.pem"))
    made: list[Seal] = []
    sealing = SealAuditLog(store=store, signer=signer, every_seconds=60, on_seal=made.append, on_fault=pytest.fail)
    await called_ten_minutes_ago(database)
    await sealing.seal()
    assert [(1, 1)] == [(seal.number, seal.entry_count) for seal in made]
    await placed(store)
    assert await sealed(store, signer)
    # Another replica has made the next: nothing is wrong.
    await sealing.seal()
    await without_triggers(database, "DELETE FROM audit_seals")
    with pytest.raises(SealMissing):
        await sealing.seal()
    async with database.read() as connection:
        assert [] == (await connection.execute(select(audit_seals))).all()


async def called_ten_minutes_ago(database: Database) -> None:
    async def write(connection: AsyncConnection) -> None:
        head = Head(0, bytes(32), await audit.now(connection) - 600_000)
        await audit.write(connection, [of_call(head, CallRecord("AdminService/ListOrders", "done", by("root"), "{}"))])

    await database.write(write)


async def test_of_many_replicas_one_makes_a_seal(database: Database, tmp_path: Path) -> None:
    store, signer = store_on(database), Ed25519Signer.read(new_signing_key(tmp_path / "key.pem"))
    await paid(store)
    await asyncio.sleep(0.005)
    made = await asyncio.gather(*(store.seal_audit_log(signer, AT_ONCE, None) for _ in range(10)))
    assert 1 == len([seal for seal in made if seal is not None])
    async with database.read() as connection:
        assert 1 == (await connection.execute(select(func.count()).select_from(audit_seals))).scalar_one()


async def test_what_is_too_young_and_what_is_nothing_is_not_sealed(database: Database, tmp_path: Path) -> None:
    store, signer = store_on(database), Ed25519Signer.read(new_signing_key(tmp_path / "key.pem"))
    assert await sealed(store, signer) is None
    await paid(store)
    assert await store.seal_audit_log(signer, Interval(every_seconds=0, settled_after_seconds=60), None) is None
    first = await sealed(store, signer)
    assert first is not None
    assert (1, 4) == (first.number, first.entry_count)
    assert await sealed(store, signer) is None
    await placed(store)
    assert await store.seal_audit_log(signer, Interval(every_seconds=60, settled_after_seconds=0), None) is None
    second = await sealed(store, signer)
    assert second is not None
    assert (2, 1, first.until_at, first.hash) == (second.number, second.entry_count, second.from_at, second.prev_hash)


async def test_a_key_that_was_changed_is_told_by_its_id(log: Log, tmp_path: Path) -> None:
    other = Ed25519Signer.read(new_signing_key(tmp_path / "other.pem")).public_key
    async with log.database.snapshot() as connection:
        check = AuditCheck(connection, Elsewhere({other.key_id: other}, {}, 3600))
        assert [1, 2] == [fault.seq async for fault in check.faults()]


# The command


async def verified(log_data: Path, url: str, *words: str) -> tuple[int, str]:
    settings = settings_of(log_data, url)
    environment = os.environ | {
        "PAYORDER_ENV": "development",
        "PAYORDER_DATABASE_URL": url,
        "PAYORDER_ISSUER": settings.issuer,
        "PAYORDER_JWKS": settings.jwks,
    }
    environment = {name: value for name, value in environment.items() if name != "PAYORDER_SEED"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "payorder", "audit", "verify", *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_command_finds_a_deleted_row(engine: str, tmp_path: Path, new_migrated: NewMigrated) -> None:
    url = await new_migrated(engine, tmp_path)
    database = Database(url, pool_size=2, pool_timeout_seconds=5)
    log = await written(database, new_signing_key(tmp_path / "key.pem"))
    public = tmp_path / "public.pem"
    signer = Ed25519Signer.read(log.key_path)
    public.write_bytes(
        signer._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    assert PublicKey.read(public).key_id == signer.key_id

    status, told = await verified(tmp_path, url, "--public-key", str(public))
    assert (0, "nothing is wrong") == (status, told.splitlines()[-1])
    status, told = await verified(tmp_path, url, "--seal", f"3:{'0' * 64}")
    assert (1, "seals 3: missing, and it was given") == (status, told.splitlines()[0])

    async def tamper(connection: AsyncConnection) -> None:
        for statement in (*NO_TRIGGERS[engine], "DELETE FROM audit_log WHERE chain = 'paid' AND seq = 2"):
            await connection.execute(text(log.named(statement)))

    await database.write(tamper)
    await database.close()
    status, told = await verified(tmp_path, url)
    lines = told.splitlines()
    assert (1, f"{log.chains[PAID]} 2: missing, up to 2", "1 wrong") == (status, lines[0], lines[-1])
    assert "whose signatures were not checked" in told


def test_nothing_else_is_named_as_only_added_to() -> None:
    assert {"audit_log", "audit_seals", "audit_heads"} == {name for name in metadata.tables if name.startswith("audit")}
