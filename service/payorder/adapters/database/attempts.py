"""Statements that count attempts to pay, for the limits on them. hot_path.py asks the same within its claim.

Nothing is counted in advance: declines of an order stand in its row, which a claim locks; what an owner has tried, and
what was tried with a source, is read from the payments. The attempts of an owner and of a source that count are
numbered, and the numbers are unique: of claims that saw the same, in whatever replica, one is written and the others
look again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from sqlalchemy import ColumnElement, bindparam, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.tables import OWNER_HAS_TRIED, SOURCE_WAS_TRIED, payments
from payorder.domain.errors import RateLimited
from payorder.domain.limits import AttemptLimits
from payorder.domain.payment import Payment

_OWNER_HAS_TRIED: ColumnElement[bool] = literal_column(OWNER_HAS_TRIED)
_SOURCE_WAS_TRIED: ColumnElement[bool] = literal_column(SOURCE_WAS_TRIED)
# What is open usually ends in seconds, and then counts no longer if it was paid.
_OPEN_RETRY_SECONDS = 5

# Numbers are given in the order of time, so that the newest are enough.
_OF_OWNER = (
    select(payments.c.owner_attempt.label("number"), payments.c.claimed_at, payments.c.settled_at)
    .where(payments.c.owner_sub == bindparam("whose"), _OWNER_HAS_TRIED)
    .order_by(payments.c.owner_attempt.desc())
    .limit(bindparam("at_most"))
)
_OF_SOURCE = (
    select(payments.c.source_attempt.label("number"), payments.c.claimed_at, payments.c.settled_at)
    .where(payments.c.source_fingerprint == bindparam("whose"), _SOURCE_WAS_TRIED)
    .order_by(payments.c.source_attempt.desc())
    .limit(bindparam("at_most"))
)


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """`poll_after_ms`: how long after its claim somebody asks after a payment that is still open."""

    poll_after_ms: int
    limits: AttemptLimits


def to_window_milliseconds(limits: AttemptLimits) -> int:
    return round(limits.window_seconds * 1000)


def counts_source(payment: Payment, limits: AttemptLimits) -> bool:
    return limits.attempts_per_source > 0 and payment.source_fingerprint is not None


async def number(
    connection: AsyncConnection, payment: Payment, order: Any, limits: AttemptLimits
) -> dict[str, int | None]:
    """The columns that number this attempt, None where it is not counted. Raises RateLimited.

    `order` is the row of the order, which must be locked, with the database's time as `audit_at`.
    """
    now, window = order.audit_at, to_window_milliseconds(limits)
    if 0 < limits.declines_per_order <= order.declines:
        raise RateLimited("order", _seconds_until(order.declined_at + window, now))
    of_owner = of_source = None
    if at_most := limits.attempts_per_owner:
        tried = (await connection.execute(_OF_OWNER, {"whose": order.owner_sub, "at_most": at_most})).all()
        of_owner = _next("owner", tried, at_most, now, window)
    if counts_source(payment, limits):
        at_most = limits.attempts_per_source
        tried = (await connection.execute(_OF_SOURCE, {"whose": payment.source_fingerprint, "at_most": at_most})).all()
        of_source = _next("source", tried, at_most, now, window)
    return {"owner_attempt": of_owner, "source_attempt": of_source}


def _next(counted: str, tried: Sequence[Any], at_most: int, now: int, window: int) -> int:
    """The number after the newest of `tried`, which are rows, at most `at_most`, the newest first."""
    if len(tried) == at_most and tried[-1].claimed_at > now - window:
        until_oldest_is_over = _seconds_until(tried[-1].claimed_at + window, now)
        has_open = any(row.settled_at is None for row in tried)
        raise RateLimited(counted, min(until_oldest_is_over, _OPEN_RETRY_SECONDS) if has_open else until_oldest_is_over)
    return tried[0].number + 1 if tried else 1


def _seconds_until(moment: int, now: int) -> int:
    return max(1, ceil((moment - now) / 1000))
