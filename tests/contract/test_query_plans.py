# ruff: noqa: S608 - the statements are put together from this file alone
"""Every statement finds its rows by an index, however many there are: asked of the engines' plans, not of a clock.

PostgreSQL is asked for the generic plan, made without knowing the values: the one that a prepared statement may get.
"""

import ast
import asyncio
import importlib
import json
import pkgutil
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import pytest
from sqlalchemy import Insert, PrimaryKeyConstraint, TextClause, UniqueConstraint, bindparam, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import asyncpg as postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.base import Executable

import payorder
from conftest import ENGINES, new_database
from payorder.adapters import database as adapter
from payorder.adapters.database.engine import Database
from payorder.adapters.database.migrate import upgrade
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import audit_log, findings, metadata, orders, payments
from payorder.local.postgres import EmbeddedPostgres
from support.records import LATER, NO_LIMITS, a_key, a_payment, an_order, by, reply_of, succeeded

Statement = Executable | str

# A statement enters a table by columns of which one row at most has these values, or stands here: what it enters by
# instead, and why it may. Whatever an order, a customer or a processor has many of is read a page at a time.
MANY: Mapping[str, str | tuple[str, ...]] = {
    # A page of administrators looks at so many at most.
    "admin._NEWEST": "orders id> id<",
    "admin._FITTING": "orders id> id<",
    "admin._FITTING_OF_OWNER": "orders owner_sub= id> id<",
    "admin._END": "orders id> id<",
    "admin._END_OF_OWNER": "orders owner_sub= id> id<",
    "admin._WANTED": "audit_log id> id<",
    "admin._ENTRIES": "audit_log id> id<",
    "admin._ENTRIES_OF_ORDER": "audit_log chain=",
    # What has happened since the newest sum, of which there is one in ten minutes, and the sum itself.
    "statistics._ADDED": "audit_log id> id<",
    "statistics._NEWEST": "statistics",
    "statistics._NEWEST_BEFORE": "statistics until_at<",
    "statistics._SUMS": "statistics until_at=",
    "statistics._OLDEST": "statistics",
    "statistics._FORGET": "statistics until_at=",
    # The check reads all of it, from one end to the other, as many at a time as fit.
    "audit_check._IN_ORDER": "audit_log",
    "audit_check._FURTHER": "audit_log",
    "audit_check._ORDERS": "orders id>",
    "audit_check._CALLERS": "audit_heads chain>",
    "audit_check._AN_ENTRY": "audit_log chain=",
    "audit_check._SEALS": "audit_seals number>",
    "seals._HASHES": "audit_log id> id<",  # and at most what an hour has written
    "audit._NEXT_AT": "audit_log id>",
    "seals._NEWEST": "audit_seals",
    # At most as many as the limits say. SQLite counts the condition of the index as a comparison.
    "attempts._OF_OWNER": ("payments owner_sub=", "payments owner_sub= owner_attempt>"),
    "attempts._OF_SOURCE": ("payments source_fingerprint=", "payments source_fingerprint= source_attempt>"),
    "hot_path._CLAIM": ("payments owner_sub=", "payments source_fingerprint="),
    # A batch of what waits.
    "fan_out._PENDING": "events",
    "fan_out._ENDPOINTS": ("webhook_endpoints owner_sub=", "webhook_endpoints order_id=", "webhook_endpoints"),
    "fan_out._HEARING": ("webhook_endpoints", "webhook_endpoints owner_sub="),
    # One row for each lane in which something waits, and of each what it has room for. SQLite counts the condition of
    # an index as a comparison.
    "deliveries._CLAIM": ("webhook_deliveries lane>", "webhook_deliveries lane="),
    "deliveries._WAITING_ON_SQLITE": ("webhook_deliveries lane>", "following lane>"),
    "deliveries._IN_LANE": "webhook_deliveries lane=",
    "delivery_lanes._MOVE": "webhook_deliveries endpoint_id=",  # of a callback, which has one
    "deliveries._CLAIM_OF_ONE": "webhook_deliveries lane=",
    # So many at a time.
    "deliveries._COME_BACK": ("webhook_deliveries next_attempt_at<", "back"),
    "deliveries._FINISH": "webhook_attempts delivery_id=",  # of which a delivery has few
    "deliveries._FINISH_ONE": "webhook_attempts delivery_id=",
    "old_deliveries._END": "webhook_deliveries id> id<",
    "old_deliveries._REMOVE": "webhook_deliveries id> id<",
    "old_deliveries._FORGET_SECRETS": (
        "webhook_endpoints previous_secret_until<",
        "webhook_endpoints previous_secret_until> previous_secret_until<",
    ),
    "endpoint_deliveries._TESTS": "webhook_deliveries endpoint_id=",
    "endpoint_news._OTHERS": "webhook_endpoints created_by=",
    # At most so many at a time, of one order.
    "events._AFTER": "events order_id= seq>",
    "findings._KNOWN": "findings processor_reference=",  # one of each kind
    "orders._FIRST_PAGE": "orders owner_sub=",
    "orders._NEXT_PAGE": "orders owner_sub= id<",
    # A page, or at most as many as the limits say.
    "endpoints._COUNT": "webhook_endpoints created_by=",
    "endpoints._COUNT_OF_ORDER": "webhook_endpoints order_id=",
    "endpoints._CALLBACKS": "webhook_endpoints order_id=",
    "endpoints._FIRST_PAGE": "webhook_endpoints created_by=",
    "endpoints._NEXT_PAGE": "webhook_endpoints created_by= id<",
    "everybodys_endpoints._NEWEST": "webhook_endpoints id<",
    "everybodys_endpoints._FITTING": "webhook_endpoints id<",
    "everybodys_endpoints._FITTING_OF_CREATOR": "webhook_endpoints created_by= id<",
    "everybodys_endpoints._END": "webhook_endpoints id<",
    "everybodys_endpoints._END_OF_CREATOR": "webhook_endpoints created_by= id<",
    "endpoint_deliveries._ANY": "webhook_deliveries endpoint_id=",
    "endpoint_deliveries._FITTING": "webhook_deliveries endpoint_id= id<",
    "endpoint_deliveries._SOME": "webhook_deliveries endpoint_id=",
    "endpoint_deliveries._REMOVE_SOME": "webhook_deliveries endpoint_id=",
    "endpoint_deliveries._END": "webhook_deliveries endpoint_id= id<",
    "endpoint_deliveries._ATTEMPTS": ("webhook_attempts delivery_id=", "webhook_attempts delivery_id= number>"),
    # So many entries are looked at in a call.
    "replays._FOUND": "audit_log id>",
    "replays._OWN_FOUND": ("orders owner_sub= id>", "audit_log chain="),
    "replays._LOCK": "webhook_deliveries endpoint_id=",  # only on SQLite, which is not asked
    "payments._FIRST_PAGE": "payments order_id=",
    "payments._NEXT_PAGE": "payments order_id= id<",
    "payments._DUE": "payments processor= next_poll_at<",
    "payments._LEASE": "payments processor= next_poll_at<",
    "refunds._DUE": "refunds processor= next_poll_at<",
    "refunds._LEASE": "refunds processor= next_poll_at<",
}
# What is sorted has a bound: what SQLite has looked at for a page of administrators, and what is added up at a time.
SORTED = {
    "admin._FITTING",
    "admin._FITTING_OF_OWNER",
    "everybodys_endpoints._FITTING",
    "everybodys_endpoints._FITTING_OF_CREATOR",
    "statistics._ADDED",
    "endpoint_deliveries._FITTING",
    "replays._FOUND",
    "replays._OWN_FOUND",
    # As many as are locked in one order.
    "deliveries._FINISH",
    "deliveries._LOCK",
    "replays._LOCK",
}
# The schema's version; what SQLite calls a subquery without a table, and those; a list that is handed in.
ONE_ROW = {"alembic_version", "CONSTANT", "looked_at", "own", "newest", "moment", "first", "lanes", "json_each"}
ALIASES = {"endpoint": "webhook_endpoints"}
# PostgreSQL's own tables, of which it is asked once, at the start.
CATALOG = "pg_"
SQLITE_CLOCK = "julianday"
ON_SQLITE = "_ON_SQLITE"

# On PostgreSQL, whose plans depend on how much there is.
ROWS = 5000
OPEN = "n % 10 = 0"


def rows_of(table: str, **columns: str) -> str:
    """Values as SQL of `n`, the number of the row."""
    return (
        f"INSERT INTO {table} ({', '.join(columns)})"
        f" SELECT {', '.join(columns.values())} FROM generate_series(1, {ROWS}) AS n"
    )


MONEY = {"currency": "'GBP'", "currency_digits": "2"}
PAYMENT = MONEY | {
    "order_id": "'order' || n",
    "amount_minor": "4999",
    "processor": "'sandbox'",
    "owner_sub": "'owner' || n % 20",
    "caller": "'owner' || n % 20",
    "source_kind": "'card'",
    "source_last4": "'4242'",
    "source_masked": "'{}'",
    "created_at": "n",
    "claimed_at": "n",
    "source_fingerprint": "decode(md5(CAST(n AS text)), 'hex')",
}
FILL = [
    rows_of(
        "orders",
        **MONEY,
        id="'order' || n",
        owner_sub="'owner' || n % 20",
        status="'placed'",
        total_minor="4999",
        metadata="'{}'",
        audit_seq="1",
        audit_hash="'hash'::bytea",
        audit_previous="'previous'::bytea",
        created_at="n",
        updated_at="n",
    ),
    rows_of(
        "payments",
        **PAYMENT,
        id="'payment' || n",
        status=f"CASE WHEN {OPEN} THEN 'processing' ELSE 'succeeded' END",
        processor_reference=f"CASE WHEN NOT {OPEN} THEN 'charge' || n END",
        captured_minor=f"CASE WHEN NOT {OPEN} THEN 4999 ELSE 0 END",
        idempotency_key="'key' || n",
        fingerprint="'f'",
        reply=f"CASE WHEN NOT {OPEN} THEN 'reply'::bytea END",
        source_attempt="1",
        owner_attempt="n",
        next_poll_at=f"CASE WHEN {OPEN} THEN n END",
        settled_at=f"CASE WHEN NOT {OPEN} THEN n END",
    ),
    rows_of(
        "payments",
        **PAYMENT,
        id="'failed' || n",
        source_attempt="2",
        owner_attempt=f"{ROWS} + n",
        decline_code="'card_declined'",
        status="'failed'",
        reply="'reply'::bytea",
        settled_at="n",
    ),
    rows_of(
        "refunds",
        id="'refund' || n",
        payment_id="'payment' || n",
        order_id="'order' || n",
        amount_minor="1",
        status=f"CASE WHEN {OPEN} THEN 'processing' ELSE 'succeeded' END",
        reason="'order_cancelled'",
        processor="'sandbox'",
        processor_reference=f"CASE WHEN NOT {OPEN} THEN 'refund' || n END",
        next_poll_at=f"CASE WHEN {OPEN} THEN n END",
        created_at="n",
    ),
    rows_of("receipts", id="'payment' || n", payment_id="'payment' || n", order_id="'order' || n", created_at="n"),
    rows_of(
        "events",
        order_id="'order' || n",
        seq="1",
        id="'event' || n",
        type="'order.approved'",
        subject_id="'order' || n",
        from_state="'placed'",
        actor="'payorder'",
        created_at="n",
        fanned_out_at=f"CASE WHEN NOT {OPEN} THEN n END",
    ),
    rows_of(
        "webhook_endpoints",
        id="'endpoint' || n",
        created_by="'owner' || n % 20",
        owner_sub=f"CASE WHEN NOT {OPEN} THEN 'owner' || n END",
        order_id=f"CASE WHEN {OPEN} AND n % 20 = 0 THEN 'order' || n END",
        url="'https://shop.example'",
        event_types="'[]'",
        state="CASE WHEN n % 3 = 0 THEN 'disabled' ELSE 'enabled' END",
        disabled_because="CASE WHEN n % 3 = 0 THEN 'owner' END",
        secret=f"CASE WHEN NOT {OPEN} OR n % 20 != 0 THEN 'sealed'::bytea END",
        created_at="n",
        updated_at="n",
    ),
    rows_of(
        "webhook_deliveries",
        id="'delivery' || n",
        endpoint_id="'endpoint' || n % 50 + 1",
        event_id="'event' || n",
        event_type="'order.statusChanged'",
        body="'{}'::bytea",
        state=f"CASE WHEN {OPEN} THEN 'pending' ELSE 'delivered' END",
        lane=f"CASE WHEN {OPEN} AND n % 20 = 0 THEN 'endpoint' || n % 50 + 1 END",
        attempts="1",
        next_attempt_at=f"CASE WHEN {OPEN} THEN n END",
        created_at="n",
    ),
    rows_of(
        "webhook_attempts",
        delivery_id="'delivery' || n",
        number="1",
        claim="1",
        at="n",
        status_class="2",
        delivered="true",
    ),
    rows_of(
        "audit_log",
        id="'entry' || n",
        chain="'order' || n",
        seq="1",
        at="n",
        actor="'payorder'",
        kind="'order'",
        object_id="'order' || n",
        to_state="'placed'",
        outcome="'done'",
        prev_hash="'previous'::bytea",
        hash="'hash'::bytea",
    ),
    rows_of(
        "audit_seals",
        number="n",
        from_at="n",
        until_at="n + 1",
        entry_count="1",
        digest="'digest'::bytea",
        prev_hash="'previous'::bytea",
        key_id="'key'",
        signature="'signature'::bytea",
    ),
    rows_of(
        "statistics",
        until_at="n / 10",
        kind="'order'",
        from_state="''",
        to_state="'placed'",
        currency="''",
        currency_digits="n % 10",
        decline_code="''",
        times="1",
        amount_minor="1",
    ),
    rows_of("audit_heads", chain="'caller:' || n", seq="1", hash="'hash'::bytea"),
    rows_of(
        "keyed_replies",
        caller="'owner' || n % 20",
        method="'CancelOrder'",
        idempotency_key="'key' || n",
        fingerprint="'f'",
        order_id="'order' || n",
        reply="'reply'::bytea",
        created_at="n",
    ),
    rows_of(
        "findings",
        processor_reference="'charge' || n",
        kind="'amount_differs'",
        payment_id="'payment' || n",
        opened_at="n",
    ),
    "ANALYZE",
]


# What is sent

SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM)\b")


def statements() -> dict[str, Statement]:
    """Everything that the adapter keeps to be executed, by its name."""
    found: dict[str, Statement] = {}
    for module in pkgutil.iter_modules(adapter.__path__):
        for name, value in vars(importlib.import_module(f"{adapter.__name__}.{module.name}")).items():
            if isinstance(value, Executable) or (name.isupper() and isinstance(value, str) and SQL.search(value)):
                found[f"{module.name}.{name}"] = value
    return found


def is_for(engine: str, name: str, statement: Statement) -> bool:
    """Texts are PostgreSQL's alone, and so is what asks after roles; SQLite's is what says so, or names its clock."""
    words = statement.text if isinstance(statement, TextClause) else ""
    if engine == "postgresql":
        return SQLITE_CLOCK not in words and not name.endswith(ON_SQLITE)
    return not isinstance(statement, str) and CATALOG not in words


def sent(statement: Statement, dialect: Dialect) -> str:
    """The text as the engine gets it; two values stand for a list of them."""
    if isinstance(statement, str):
        return statement
    columns = statement.table.c.keys() if isinstance(statement, Insert) else None
    compiled: Any = statement.compile(dialect=dialect, column_keys=columns)  # type: ignore[attr-defined]
    values = {
        name: ["one", "two"] if bound.expanding and bound.value is None else bound.effective_value
        for name, bound in compiled.binds.items()
    }
    return str(compiled.construct_expanded_state(values).statement)


# What is answered


@dataclass(frozen=True, slots=True)
class Scan:
    """How a plan gets at rows of a table: `entered_by` are the index's first columns that are compared, and how."""

    table: str
    index: str | None
    entered_by: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.table, *self.entered_by))

    def is_expected(self, name: str) -> bool:
        expected = MANY.get(name, ())
        return str(self) in ((expected,) if isinstance(expected, str) else expected)

    @property
    def finds_one_row(self) -> bool:
        equal = {each.removesuffix("=") for each in self.entered_by if each.endswith("=")}
        return any(
            columns <= equal and (whole or name == self.index) for name, columns, whole in unique_keys(self.table)
        )


@dataclass(frozen=True, slots=True)
class Plan:
    scans: tuple[Scan, ...]
    sorts: bool

    def faults(self, name: str) -> list[str]:
        """A sort is one, whatever it sorts: it reads everything before it gives out the first row."""
        scans = [f"{scan} by {scan.index}" for scan in self.scans if not (scan.finds_one_row or scan.is_expected(name))]
        return scans + ["sorts"] * (self.sorts and name not in SORTED)


class Planner(Protocol):
    async def plan(self, statement: Statement) -> Plan: ...


class OnPostgresql:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def plan(self, statement: Statement) -> Plan:
        words = sent(statement, postgresql.dialect())
        values = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", words))))
        await self._connection.execute(f"PREPARE asked AS {words}")
        try:
            answer = await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE asked{values and f'({values})'}")
        finally:
            await self._connection.execute("DEALLOCATE asked")
        nodes = list(nodes_of(json.loads(answer)[0]["Plan"]))
        sorts = any("Sort" in node["Node Type"] for node in nodes)
        return Plan(tuple(scan for node in nodes if (scan := scan_of(node))), sorts)


class OnSqlite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def plan(self, statement: Statement) -> Plan:
        words = sent(statement, sqlite.dialect())
        rows = self._connection.execute(f"EXPLAIN QUERY PLAN {words}", [None] * words.count("?"))
        lines = [str(line) for *_, line in rows]
        sorts = any(line.startswith("USE TEMP B-TREE") for line in lines)
        return Plan(tuple(scan for line in lines if (scan := scan_in(line))), sorts)


def nodes_of(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from nodes_of(inner)


def scan_of(node: dict[str, Any]) -> Scan | None:
    """Of a node of PostgreSQL's plan."""
    if any(node.get(name, "").startswith(CATALOG) for name in ("Relation Name", "Index Name")):
        return None
    if index := node.get("Index Name"):
        compared = re.findall(r"\b(\w+) ([=<>])", node.get("Index Cond", ""))
        # An index can also be gone through for what its later columns have, but then from one end to the other.
        first = takewhile({column for column, _ in compared}.__contains__, COLUMNS_OF[index])
        entered_by = tuple(column + how for each in first for column, how in compared if column == each)
        return Scan(TABLE_OF[index], index, entered_by)
    # A bitmap of rows is made by the index scan below.
    table = None if node["Node Type"] in ("ModifyTable", "Bitmap Heap Scan") else node.get("Relation Name")
    return Scan(table, None, ()) if table and table not in ONE_ROW else None


def scan_in(line: str) -> Scan | None:
    """In a line of SQLite's plan."""
    found = re.match(r"(?:SCAN|SEARCH) (\w+)(?: USING (?:COVERING )?INDEX (\w+)(?: \((.*)\))?)?", line)
    if found is None or found[1] in ONE_ROW:
        return None
    return Scan(ALIASES.get(found[1], found[1]), found[2], tuple(re.findall(r"(\w+[=<>])\?", found[3] or "")))


def indexes() -> Iterator[tuple[str, str, list[str], bool, bool]]:
    """Table, name, columns, whether they are unique, whether it has all rows; also of what a constraint makes."""
    for table in metadata.tables.values():
        for index in table.indexes:
            whole = index.dialect_options["postgresql"]["where"] is None
            yield table.name, str(index.name), list(index.columns.keys()), bool(index.unique), whole
        for constraint in table.constraints:
            if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint):
                yield table.name, str(constraint.name), list(constraint.columns.keys()), True, True


COLUMNS_OF = {name: columns for _, name, columns, _, _ in indexes()}
TABLE_OF = {name: table for table, name, *_ in indexes()}


def unique_keys(wanted: str) -> list[tuple[str, set[str], bool]]:
    return [
        (name, set(columns), whole) for table, name, columns, unique, whole in indexes() if unique and table == wanted
    ]


# The tests


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def migrated(url: str) -> None:
    database = Database(url, pool_size=1, pool_timeout_seconds=5)
    await upgrade(database)
    await database.close()


@pytest.fixture(scope="module")
async def planner(
    engine: str, tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres
) -> AsyncIterator[Planner]:
    """SQLite plans without looking at the data, as nothing ever tells it to count; so there it has none."""
    url = await new_database(engine, tmp_path_factory.mktemp("plans"), postgres)
    await migrated(url)
    if engine == "sqlite":
        opened = sqlite3.connect(url.removeprefix("sqlite:///"))
        yield OnSqlite(opened)
        opened.close()
        return
    connection = await asyncpg.connect(url)
    try:
        for statement in (*FILL, "SET plan_cache_mode = force_generic_plan"):
            await connection.execute(statement)
        yield OnPostgresql(connection)
    finally:
        await connection.close()


async def test_every_statement_finds_its_rows_by_an_index(engine: str, planner: Planner) -> None:
    plans = {name: await planner.plan(each) for name, each in statements().items() if is_for(engine, name, each)}
    assert {} == {name: faults for name, plan in plans.items() if (faults := plan.faults(name))}


async def test_every_index_is_a_constraint_or_used(engine: str, planner: Planner) -> None:
    """Every payment pays for each of them."""
    used = set()
    for name, statement in statements().items():
        if is_for(engine, name, statement):
            used |= {scan.index for scan in (await planner.plan(statement)).scans}
    assert set() == {name for _, name, _, unique, _ in indexes() if not unique} - used


def test_what_is_named_here_is_still_sent() -> None:
    assert set() == {*MANY, "hot_path._CLAIM", "hot_path._SETTLE"} - set(statements())


_OPEN_BOUND = payments.c.status.in_(["processing", "unknown"])
_OF_PROCESSOR = (payments.c.processor == bindparam("one"), payments.c.next_poll_at <= bindparam("now"))
BAD: dict[str, tuple[Any, str]] = {
    "no index": (select(orders).where(orders.c.currency == bindparam("one")), "orders by None"),
    "all rows": (select(orders), "orders by None"),
    "a join without an index": (
        select(orders)
        .join(payments, payments.c.id == orders.c.paid_payment_id)
        .where(payments.c.id == bindparam("one")),
        "orders by None",
    ),
    "the end of an index": (select(audit_log.c.id).where(audit_log.c.seq == bindparam("one")), "audit_log by"),
    "the end of a unique index": (select(findings.c.kind).where(findings.c.kind == bindparam("one")), "findings by"),
    "a range of a unique column": (
        select(orders).where(orders.c.id < bindparam("one")).order_by(orders.c.id).limit(1),
        "orders id< by",
    ),
    "many that are not expected": (
        select(payments).where(payments.c.order_id == bindparam("one")),
        "payments order_id= by",
    ),
    "another order than the index's": (
        select(orders)
        .where(orders.c.owner_sub == bindparam("one"))
        .order_by(orders.c.created_at)
        .limit(bindparam("rows")),
        "sorts",
    ),
    "a partial index whose condition is not known": (
        select(payments.c.id).where(_OPEN_BOUND, *_OF_PROCESSOR).order_by(payments.c.next_poll_at).limit(9),
        "sorts",
    ),
}


@pytest.mark.parametrize(("statement", "expected"), BAD.values(), ids=BAD)
async def test_a_statement_without_its_index_is_found_out(planner: Planner, statement: Any, expected: str) -> None:
    faults = (await planner.plan(statement)).faults("not one of ours")
    assert any(fault.startswith(expected) for fault in faults), faults


# Functions that make a statement, and methods that make another one of it.
MAKERS = {"select", "insert", "update", "delete", "text", "union", "union_all", "exists"}
CHANGERS = {"where", "order_by", "limit", "select_from", "returning"}
SERVICE = Path(payorder.__file__).parent
# It makes the conditions of indexes, and no statement.
TABLES = SERVICE / "adapters" / "database" / "tables.py"


def made_in_functions(path: Path) -> Iterator[str]:
    """What is made while a function runs cannot be found by its name."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        for node in ast.walk(function):
            match node:
                case ast.Call(func=ast.Name(id=name)) if name in MAKERS:
                    yield f"{path.name}:{node.lineno} {name}"
                case ast.Attribute(attr=name) if name in CHANGERS:
                    yield f"{path.name}:{node.lineno} {name}"
                case ast.Constant(value=str(words)) if SQL.search(words):
                    yield f"{path.name}:{node.lineno} {words}"


def test_no_statement_is_made_where_it_would_not_be_found() -> None:
    paths = [path for path in SERVICE.rglob("*.py") if path != TABLES and "migrations" not in path.parts]
    assert [] == [made for path in paths for made in made_in_functions(path)]


def test_a_statement_that_is_made_in_a_function_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "hidden.py"
    path.write_text("async def open(connection):\n    connection.execute(_GET)\n")
    assert [] == list(made_in_functions(path))
    for body in ("connection.execute(select(orders))", "connection.execute(_GET.where(x))", 'run("SELECT 1")'):
        path.write_text(f"async def hidden(connection):\n    {body}\n")
        assert list(made_in_functions(path))


# What paying writes


@pytest.fixture
async def url(tmp_path: Path, postgres: EmbeddedPostgres) -> str:
    """Of a migrated, empty database on PostgreSQL."""
    made = await new_database("postgresql", tmp_path, postgres)
    await migrated(made)
    return made


async def test_paying_an_order_writes_none_of_its_indexes(url: str) -> None:
    """PostgreSQL calls it a HOT update: no index has a column that changes, and the page has room."""
    database = Database(url, pool_size=1, pool_timeout_seconds=5)
    store = DatabaseStore(database, reconcile_after_seconds=25, limits=NO_LIMITS, on_change=lambda *_: None)
    order = an_order()
    payment = a_payment(order)
    await store.add_order(order, by(order.owner), reply_of(order), a_key())
    await store.claim(payment, by(order.owner), a_key())
    await store.settle(succeeded(payment), reply_of(payment), LATER)
    await database.close()
    assert 2 == await hot_updates(url, "orders", of=2)


async def hot_updates(url: str, table: str, *, of: int) -> int:
    """How many of so many updates. A connection's are counted when it ends, which is soon after it was closed."""
    counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = $1"
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(10):
            while True:
                updates, hot = await connection.fetchrow(counts, table)
                if updates == of:
                    return int(hot)
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def test_the_migration_leaves_the_room_that_the_tables_say(url: str) -> None:
    wanted = {
        table.name: [f"{name}={value}" for name, value in options.items()]
        for table in metadata.sorted_tables
        if (options := table.dialect_options["postgresql"]["with"])
    }
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT relname, reloptions FROM pg_class WHERE reloptions IS NOT NULL")
    await connection.close()
    ours = {name: options for name, options in rows if name in metadata.tables}
    assert wanted == ours
    assert wanted
