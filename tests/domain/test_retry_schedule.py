"""When a delivery that failed is attempted again: as Standard Webhooks has it, and a little later."""

import pytest

from payorder.domain.retry_schedule import ATTEMPTS_MAX, retry_seconds

MINUTE, HOUR = 60, 3600
# After the first attempt, the second and so on.
WAITS = [5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR]


def test_the_tenth_attempt_is_the_last_and_three_days_after_the_first() -> None:
    assert WAITS == [retry_seconds(number, None, chance=0) for number in range(1, ATTEMPTS_MAX)]
    assert (10, None) == (ATTEMPTS_MAX, retry_seconds(ATTEMPTS_MAX, None, chance=0))
    assert 3 * 24 * HOUR < sum(WAITS) < 4 * 24 * HOUR


@pytest.mark.parametrize(("number", "wait"), [*enumerate(WAITS, start=1)])
def test_receivers_that_failed_together_are_asked_again_up_to_a_fifth_later(number: int, wait: float) -> None:
    assert wait * 1.1 == pytest.approx(retry_seconds(number, None, chance=0.5))
    assert wait * 1.2 == pytest.approx(retry_seconds(number, None, chance=0.999_999), rel=1e-4)


def test_a_receiver_can_ask_for_more_time_and_not_for_less_or_for_more_than_a_day() -> None:
    assert [5, 60, 24 * HOUR] == [retry_seconds(1, asked, chance=0) for asked in (1, 60, 48 * HOUR)]
    assert retry_seconds(ATTEMPTS_MAX, 60, chance=0) is None
