"""No file of this tree holds a card number, but for the published test numbers."""

import re
import subprocess
from itertools import chain
from pathlib import Path

from payorder.adapters.processors import sandbox

ROOT = Path(__file__).parents[2]
RUN = re.compile(r"(?<![0-9A-Za-z.])[0-9](?:[ -]?[0-9]){12,18}(?![0-9A-Za-z])")

# On the testing pages of processors, and answered by the tables of the sandbox.
PUBLISHED = {
    *sandbox.APPROVED_CARDS,
    *sandbox.CVC_FAILING_CARDS,
    *chain(*sandbox.DECLINED_CARDS.values()),
    *sandbox._OTHER_CARDS,
}
# Luhn-valid, and on no testing page: what a test of the tables or of a search needs. Each is nobody's.
MADE_UP = {
    "4242424242424259": "a published number with other last digits",
    "4000000000000036000": "a published number, longer",
    "4929000000006": "13 digits",
    "30000000000004": "14 digits",
    "4556737586899855": "the example of many pages",
    "1795356908123": "a time in milliseconds",
}


def passes_luhn(digits: str) -> bool:
    odd, even = digits[-1::-2], digits[-2::-2]
    return (sum(map(int, odd)) + sum(sum(divmod(2 * int(digit), 10)) for digit in even)) % 10 == 0


def files() -> list[Path]:
    """What is tracked, and what will be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_file_holds_a_card_number_that_is_not_a_published_test_number() -> None:
    found: set[tuple[str, str]] = set()
    for path in files():
        for match in RUN.finditer(path.read_text(encoding="utf-8", errors="replace")):
            digits = re.sub("[ -]", "", match[0])
            if passes_luhn(digits) and digits.strip("0") and digits not in PUBLISHED:
                found.add((str(path.relative_to(ROOT)), digits))
    assert {(path, digits) for path, digits in found if digits in MADE_UP} == found
