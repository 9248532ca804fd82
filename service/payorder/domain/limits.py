"""How often somebody may be declined before the processor is no longer asked: against trying stolen cards."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    """0 switches a limit off. All look back for `window_seconds`, by the database's clock.

    `declines_per_order` counts declines without a pause of that length between them, and then there must be one.
    `attempts_per_owner` counts attempts to pay any order of one owner, and `attempts_per_source` attempts with one card
    or bank account, of anybody, that were declined or are still open: so many at the most can ever be made at once that
    have not succeeded.
    """

    declines_per_order: int
    attempts_per_owner: int
    attempts_per_source: int
    window_seconds: float
