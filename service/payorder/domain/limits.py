"""How often somebody may be declined before the processor is no longer asked: against trying stolen cards."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    """0 switches a limit off. All look back for `window_seconds`, by the database's clock.

    `declines_per_order` counts declines without a pause of that length between them, and then there must be one.
    `declines_per_owner` counts the declines of all orders of one owner.
    `attempts_per_source` counts attempts with one card or bank account, of anybody, that were declined or are still
    open: so many at the most can ever be made at once that have not succeeded.
    """

    declines_per_order: int
    declines_per_owner: int
    attempts_per_source: int
    window_seconds: float
