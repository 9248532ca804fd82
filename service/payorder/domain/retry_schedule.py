"""When a delivery that failed is attempted again, and when it is given up (Standard Webhooks)."""

# Seconds before each attempt: the first at once, the tenth three days later.
_BEFORE_ATTEMPT = (0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
ATTEMPTS_MAX = len(_BEFORE_ATTEMPT)
RETRY_AFTER_SECONDS_MAX = 24 * 3600
# Receivers that failed together are not asked again together.
_JITTER = 0.2


def retry_seconds(attempts: int, retry_after_seconds: float | None, *, chance: float) -> float | None:
    """How long to wait after so many failed attempts; None when there were enough of them.

    A receiver that asks for more time than the schedule gives has it, up to a day; asking for less changes nothing.
    `chance`: from 0 to below 1, spreads the attempts.
    """
    if attempts >= ATTEMPTS_MAX:
        return None
    scheduled = _BEFORE_ATTEMPT[attempts] * (1 + _JITTER * chance)
    return max(scheduled, min(retry_after_seconds or 0, RETRY_AFTER_SECONDS_MAX))
