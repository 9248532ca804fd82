"""Statements that count attempts to pay, for the limits on them. hot_path.py asks the same within its claim.

Nothing is counted in advance: declines of an order stand in its row, which a claim locks; those of an owner, and what
was tried with a source, are read from the payments. The attempts of a source that count are numbered, and the numbers
are unique: of claims that saw the same, in whatever replica, one is written and the others look again.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

from sqlalchemy import ColumnElement, bindparam, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.tables import SOURCE_WAS_TRIED, WAS_DECLINED, payments
from payorder.domain.errors import RateLimited
from payorder.domain.limits import AttemptLimits
from payorder.domain.payment import Payment

_WAS_DECLINED: ColumnElement[bool] = literal_column(WAS_DECLINED)
_SOURCE_WAS_TRIED: ColumnElement[bool] = literal_column(SOURCE_WAS_TRIED)

_DECLINED = (
    select(payments.c.claimed_at)
    .where(payments.c.owner_sub == bindparam("owner"), _WAS_DECLINED, payments.c.claimed_at > bindparam("since"))
    .order_by(payments.c.claimed_at.desc())
    .limit(bindparam("at_most"))
)
# Numbers are given in the order of time, so that the newest are enough.
_TRIED = (
    select(payments.c.source_attempt, payments.c.claimed_at)
    .where(payments.c.source_fingerprint == bindparam("of_source"), _SOURCE_WAS_TRIED)
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


async def number(connection: AsyncConnection, payment: Payment, order: Any, limits: AttemptLimits) -> int | None:
    """The number of this attempt among those with its source, None where they are not counted. Raises RateLimited.

    `order` is the row of the order, which must be locked, with the database's time as `audit_at`.
    """
    now, window = order.audit_at, to_window_milliseconds(limits)
    if 0 < limits.declines_per_order <= order.declines:
        raise _limited("order", order.declined_at, now, window)
    if limits.declines_per_owner:
        recent = {"owner": order.owner_sub, "since": now - window, "at_most": limits.declines_per_owner}
        declined = (await connection.execute(_DECLINED, recent)).scalars().all()
        if len(declined) == limits.declines_per_owner:
            raise _limited("owner", declined[-1], now, window)
    if not counts_source(payment, limits):
        return None
    newest = {"of_source": payment.source_fingerprint, "at_most": limits.attempts_per_source}
    tried = (await connection.execute(_TRIED, newest)).all()
    if len(tried) == limits.attempts_per_source and tried[-1].claimed_at > now - window:
        raise _limited("source", tried[-1].claimed_at, now, window)
    return tried[0].source_attempt + 1 if tried else 1


def _limited(counted: str, since: int, now: int, window: int) -> RateLimited:
    """Until what counts longest no longer counts."""
    return RateLimited(counted, max(1, ceil((since + window - now) / 1000)))
