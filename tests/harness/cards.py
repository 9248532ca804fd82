"""Card numbers of one call each, so that a leak can be searched for. All start with the sentinel."""

from random import Random

# Visa's first digit and nothing that any other text of a run contains.
SENTINEL = "4929173508"


def card_number(random: Random) -> str:
    digits = SENTINEL + f"{random.randrange(10**5):05}"
    return digits + str(-sum(_weighted(int(digit), place) for place, digit in enumerate(reversed(digits))) % 10)


def _weighted(digit: int, place: int) -> int:
    doubled = digit * 2 if place % 2 == 0 else digit
    return doubled - 9 if doubled > 9 else doubled
