"""When declines are too many."""

import pytest

from payorder.domain.declines import Attempts, DeclineLimits, are_unusual

LIMITS = DeclineLimits(declines_per_day=100, ratio=2)
NO_PAST, A_PAST = Attempts(0, 0), Attempts(9900, 985)  # One in ten, with what is assumed.


@pytest.mark.parametrize(
    ("day", "before", "expected"),
    [
        (Attempts(100, 100), NO_PAST, False),
        (Attempts(101, 101), NO_PAST, True),
        (Attempts(1000, 300), NO_PAST, False),
        (Attempts(1000, 301), NO_PAST, True),
        (Attempts(1000, 200), A_PAST, False),
        (Attempts(1000, 201), A_PAST, True),
        (Attempts(100_000, 11_440), A_PAST, False),
        (Attempts(0, 0), A_PAST, False),
    ],
)
def test_both_limits_must_be_passed(day: Attempts, before: Attempts, expected: bool) -> None:
    assert expected == are_unusual(day, before, LIMITS)
