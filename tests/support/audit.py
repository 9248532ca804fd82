"""What the audit log says of calls."""

from collections.abc import Mapping
from typing import Any

import asyncpg
from sqlalchemy.engine import make_url

from support.stack import Stack


async def calls_of(stack: Stack, subject: str) -> list[Mapping[str, Any]]:
    """Read past the service, which would write that down too."""
    statement = "SELECT * FROM audit_log WHERE chain = {} ORDER BY seq"
    chain = f"caller:{subject}"
    if stack.database_url.startswith("sqlite"):
        import sqlite3  # noqa: PLC0415 - on this engine alone

        connection = sqlite3.connect(f"file:{make_url(stack.database_url).database}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        rows = connection.execute(statement.format("?"), [chain]).fetchall()
        connection.close()
        return [dict(row) for row in rows]
    opened = await asyncpg.connect(stack.database_url)
    rows = await opened.fetch(statement.format("$1"), chain)
    await opened.close()
    return [dict(row) for row in rows]
