"""Whoever receives webhooks: somewhere on the internet, and not to be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class UrlRefused(Exception):
    """Nothing may be sent there: not https, no public address, or not written as it should be."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is the HTTP status, None if there was none in time; `retry_after_seconds` as the receiver asked."""

    status: int | None
    retry_after_seconds: float | None = None


class Receivers(Protocol):
    """`by_service`: who has given the URL may act for any owner. For these alone networks inside may be open."""

    async def vet(self, url: str, *, by_service: bool) -> None:
        """Whether something could be sent there now. Raises UrlRefused."""
        ...

    async def send(self, url: str, headers: Mapping[str, str], body: bytes, *, by_service: bool) -> Answer:
        """POST `body` to an address that is vetted in the same breath. Never raises for what the receiver does; an
        address that is refused by now is an answer without a status."""
        ...

    async def close(self) -> None: ...
