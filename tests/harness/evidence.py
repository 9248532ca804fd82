"""The three records a run leaves: the processor's ledger, the service's database, the clients' transcript.

Reads them with nothing of the service's: plain sqlite3, asyncpg and JSON.
"""

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

Row = Mapping[str, Any]
TABLES = ("orders", "payments", "receipts", "events", "audit_log", "refunds", "findings")


@dataclass(slots=True)
class Charge:
    """One charge of the ledger; `refunds` maps refund keys to amounts."""

    key: str
    amount_minor: int
    currency: str
    reference: str
    refunds: dict[str, int] = field(default_factory=dict)

    @property
    def kept_minor(self) -> int:
        return self.amount_minor - sum(self.refunds.values())


@dataclass(slots=True)
class Ledger:
    charges: list[Charge]
    requests: list[Row]
    declined: set[str]
    cancelled: set[str]

    @classmethod
    def read(cls, path: Path) -> "Ledger":
        lines = read_lines(path)
        by_key = {
            line["key"]: Charge(line["key"], line["amount_minor"], line["currency"], line["reference"])
            for line in lines
            if line["event"] == "charged"
        }
        for line in lines:
            if line["event"] == "refund":
                by_key[line["charge_key"]].refunds[line["key"]] = line["amount_minor"]
        return cls(
            charges=list(by_key.values()),
            requests=[line for line in lines if line["event"] == "request"],
            declined={line["key"] for line in lines if line["event"] == "declined"},
            cancelled={line["key"] for line in lines if line["event"] == "cancelled"},
        )


@dataclass(slots=True)
class Evidence:
    """`tables` has None for a table that the database lacks."""

    ledger: Ledger
    tables: Mapping[str, list[Row] | None]
    calls: list[Row]
    notes: list[Row]
    # What the service logged as faults of its own: type and place, the cause last.
    faults: list[str] = field(default_factory=list)

    def rows(self, table: str) -> list[Row]:
        return self.tables[table] or []


async def collect(ledger: Path, transcripts: Iterable[Path], database_url: str, logs: Iterable[Path] = ()) -> Evidence:
    lines = [line for path in transcripts for line in read_lines(path)]
    calls = [line | {"answer": base64.b64decode(line["answer"])} for line in lines if "method" in line]
    return Evidence(
        ledger=Ledger.read(ledger),
        tables={table: await read_table(database_url, f"SELECT * FROM {table}") for table in TABLES},  # noqa: S608
        calls=calls,
        notes=[line for line in lines if "method" not in line],
        faults=[fault for log in logs for fault in read_faults(log)],
    )


def read_faults(log: Path) -> Iterator[str]:
    with log.open(encoding="utf-8") as file:
        for line in file:
            # A kill can cut a line short.
            told = json.loads(line) if '"fault"' in line and line.endswith("}\n") else {}
            if told.get("event") == "fault":
                yield " <- ".join(_place(each) for each in told["faults"])


def _place(fault: Row) -> str:
    return f"{fault['type']} at {fault['frames'][-1]}" if fault["frames"] else str(fault["type"])


async def read_table(database_url: str, query: str) -> list[Row] | None:
    """None if there is no such table."""
    if database_url.startswith("sqlite"):
        return _read_sqlite(database_url.partition("///")[2], query)
    connection = await asyncpg.connect(database_url)
    try:
        return [dict(row) for row in await connection.fetch(query)]
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close()


def _read_sqlite(path: str, query: str) -> list[Row] | None:
    connection = sqlite3.connect(path, timeout=10)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(query)]
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    finally:
        connection.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
