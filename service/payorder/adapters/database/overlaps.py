"""Secrets of before that still sign, each until its own time, as JSON text. They are sealed."""

import base64
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Overlap:
    """`until` is in epoch milliseconds, by the database's clock."""

    until: int
    sealed: bytes


def read(text: str | None, now: int) -> list[Overlap]:
    """Those that are not over, the newest last."""
    kept = [Overlap(until, base64.b64decode(sealed)) for until, sealed in json.loads(text)] if text else []
    return [overlap for overlap in kept if overlap.until > now]


def write(overlaps: list[Overlap]) -> str | None:
    return json.dumps([[each.until, base64.b64encode(each.sealed).decode()] for each in overlaps]) if overlaps else None
