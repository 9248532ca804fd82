"""When declines are so many that somebody should look: a slow, spread trial of cards shows in their number alone."""

from dataclasses import dataclass

# Stand for a past that is not there yet, and weigh less the more of it there is.
_ATTEMPTS_ASSUMED, _DECLINES_ASSUMED = 100, 15


@dataclass(frozen=True, slots=True)
class Attempts:
    """Attempts to pay that the processor has answered, and how many of them it declined."""

    answered: int
    declined: int


@dataclass(frozen=True, slots=True)
class DeclineLimits:
    """Both must be passed. `ratio` is of the declines of a day to those that the days before lead one to expect."""

    declines_per_day: int
    ratio: float


def expected(day: Attempts, before: Attempts) -> float:
    """How many of a day's attempts would be declined if as many were as before."""
    share = (before.declined + _DECLINES_ASSUMED) / (before.answered + _ATTEMPTS_ASSUMED)
    return share * day.answered


def are_unusual(day: Attempts, before: Attempts, limits: DeclineLimits) -> bool:
    return day.declined > limits.declines_per_day and day.declined > limits.ratio * expected(day, before)
