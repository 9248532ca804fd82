"""Ids of what is written in a row: UUIDv7 (RFC 9562) of the moment, then the last twelve bits of a number.

They are in the order of the moments, and at one moment of the numbers. hot_path.py makes the same in SQL.
"""

from uuid import uuid4


def id_of(at: int, seq: int, tail: str) -> str:
    """`at` is in epoch milliseconds; `tail`, from `random_tail`, may be shared by ids of different numbers."""
    return f"{begin_of_id(at)}{seq % 4096:03x}{tail}"


def random_tail() -> str:
    return str(uuid4())[18:]


def first_id(at: int) -> str:
    """Below every id that was made at `at` or later, and above all others."""
    return f"{begin_of_id(at)}000-8000-000000000000"


def begin_of_id(at: int) -> str:
    milliseconds = f"{at:012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}-7"
