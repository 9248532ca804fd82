"""The database's own clock, in epoch milliseconds: the one clock that all replicas share."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, case
from sqlalchemy.ext.compiler import compiles


class now_milliseconds(ColumnElement[int]):  # noqa: N801 - reads as the SQL function it is
    type = BigInteger()
    inherit_cache = True


_RETRY_SECONDS_MAX = 15


def retry_milliseconds(attempts: ColumnElement[int]) -> ColumnElement[int]:
    """One second more with each attempt, up to fifteen: a processor that answers again is soon noticed."""
    return case((attempts < _RETRY_SECONDS_MAX, attempts * 1000), else_=_RETRY_SECONDS_MAX * 1000)


@compiles(now_milliseconds, "postgresql")
def _postgresql(_element: now_milliseconds, _compiler: Any, **_options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"


@compiles(now_milliseconds, "sqlite")
def _sqlite(_element: now_milliseconds, _compiler: Any, **_options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
