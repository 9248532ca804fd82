"""What the processor does to a request, decided by the run's seed and the key alone."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

# Of a hundred charges. Names say whether money moves: *_before never, *_after always.
CHARGES: Mapping[str, int] = {
    "ok": 44,
    "decline": 10,
    "drop_before": 6,  # connection reset, nothing charged
    "drop_after": 7,  # charged, connection reset
    "late": 8,  # no answer; charged later, unless it is cancelled meanwhile
    "error_before": 4,  # 500
    "error_after": 4,  # charged, 500
    "throttled": 3,  # 429, certainly not charged
    "garbage": 2,  # charged, answered with HTML and status 200
    "truncated": 3,  # charged, the answer breaks off
    "wrong_amount": 3,  # charged, the answer names another amount
    "slow": 3,  # charged, answered after a while
    "race": 3,  # decided after a while, when a cancel may have come in between
}
# What happens to the first two cancels, and refunds, of a key; from the third on all is well.
ANSWERS: Mapping[str, int] = {
    "ok": 70,
    "drop_before": 6,
    "drop_after": 6,
    "error_before": 5,
    "error_after": 5,
    "garbage": 2,
    "slow": 3,
    "race": 3,
}
GENTLE: Mapping[str, int] = {"ok": 90, "decline": 10}
ALWAYS_OK: Mapping[str, int] = {"ok": 1}
DECLINE_CODES = ("card_declined", "insufficient_funds", "expired_card", "incorrect_cvc")
TROUBLES_PER_KEY_MAX = 2


@dataclass(frozen=True, slots=True)
class Behaviour:
    """`delay_seconds` is how late a late, slow or racing answer is."""

    name: str
    delay_seconds: float
    decline_code: str


def behaviour_of(seed: int, operation: str, key: str, attempt: int, weights: Mapping[str, int]) -> Behaviour:
    digest = hashlib.sha256(f"{seed}/{operation}/{key}/{attempt}".encode()).digest()
    name = "ok"
    if operation == "charge" or attempt <= TROUBLES_PER_KEY_MAX:
        name = _pick(int.from_bytes(digest[:4]), weights)
    scale = digest[4] / 255
    delay = {"late": 0.4 + 4.0 * scale, "slow": 0.1 + 1.4 * scale, "race": 0.05 + 0.6 * scale}.get(name, 0.0)
    return Behaviour(name, delay, DECLINE_CODES[digest[5] % len(DECLINE_CODES)])


def _pick(number: int, weights: Mapping[str, int]) -> str:
    number %= sum(weights.values())
    for name, weight in weights.items():
        if number < weight:
            return name
        number -= weight
    raise AssertionError("weights are positive")
