"""Who calls."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity that a verified token stands for: `subject` is its `sub`, `scopes` what it may do.

    `expires_at` is the token's `exp`, in epoch seconds.
    """

    subject: str
    scopes: frozenset[str]
    expires_at: float


class TokenVerifier(Protocol):
    async def verify(self, token: str, certificate: str | None) -> Caller:
        """Raises Unauthenticated for every token that is not accepted.

        `certificate` is the one that the client has shown, as SHA-256 in base64url: some tokens are good with it alone.
        """
        ...
