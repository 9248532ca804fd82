"""Card numbers are found in free text however they are written, and ids are not taken for them."""

import random
from uuid import UUID

import pytest

from payorder.edge.validation import looks_like_a_card_number

FOUND = (
    "4242424242424242",
    "4242 4242 4242 4242",
    "4242-4242-4242-4242",
    "4242  4242  4242  4242",
    "4242.4242.4242.4242",
    "4242424242424242 12/25",
    "4242 4242 4242 4242 123",
    "order 12 4242424242424242",
    "card:4242424242424242;",
    "378282246310005",
    "card4242424242424242",
    "4242424242424242x",
    "a4242424242424242",
    "4242/4242/4242/4242",
    "4242+4242+4242+4242",
    "4242_4242_4242_4242",
    "4242, 4242, 4242, 4242",
    "4242\N{NO-BREAK SPACE}4242\N{EN DASH}4242 4242",
    "2223003122003222",
    "6205500000000000004",
)
NOT_FOUND = ("", "N12 9XX", "4242424242424241", "2026-11-22 14:53", "+44 20 7946 0958", "1234567890", "0.005")
TIMES = ("2026-11-22 17:34:05.{:06}", "2026-11-22T17:34:05.{:06}Z", "20261122173405{:03}", "2026/11/22, 17.34.{:02}")


@pytest.mark.parametrize("text", FOUND)
def test_a_card_number_is_found(text: str) -> None:
    assert looks_like_a_card_number(text)


@pytest.mark.parametrize("text", NOT_FOUND)
def test_other_text_is_left_alone(text: str) -> None:
    assert not looks_like_a_card_number(text)


@pytest.mark.parametrize("form", TIMES)
def test_a_time_is_no_card_number_whatever_its_digits(form: str) -> None:
    assert [] == [text for number in range(100) if looks_like_a_card_number(text := form.format(number))]


@pytest.mark.parametrize("length", [16, 24, 32, 40, 64])
def test_a_hexadecimal_word_is_hardly_ever_a_card_number(length: int) -> None:
    chance = random.Random(20261122)  # noqa: S311 - the same words in every run
    words = [f"{chance.getrandbits(4 * length):0{length}x}" for _ in range(20_000)]
    assert len([each for each in words if looks_like_a_card_number(each)]) < 5


def test_an_id_is_no_card_number_whatever_its_digits() -> None:
    chance = random.Random(20261122)  # noqa: S311 - the same ids in every run
    ids = [str(UUID(int=chance.getrandbits(128), version=4)) for _ in range(20_000)]
    assert [] == [each for each in ids if looks_like_a_card_number(f"ref {each}")]
    assert [] == [each for each in ids if looks_like_a_card_number(each.replace("-", ""))]
