"""Who calls."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity that a verified token stands for: `subject` is its `sub`, `scopes` what it may do."""

    subject: str
    scopes: frozenset[str]


class TokenVerifier(Protocol):
    async def verify(self, token: str) -> Caller:
        """Raises Unauthenticated for every token that is not accepted."""
        ...
