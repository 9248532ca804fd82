"""Secrets that must be read again, as those that sign webhooks: at rest they are encrypted."""

from typing import Protocol

from payorder.domain.secret import Secret


class SecretBox(Protocol):
    def seal(self, secret: Secret) -> bytes: ...

    def open(self, sealed: bytes) -> Secret:
        """Raises ValueError when it was sealed with a key that is not known any more."""
        ...
