"""Who signs."""

from typing import Protocol


class Signer(Protocol):
    @property
    def key_id(self) -> str:
        """Tells this key from others."""
        ...

    def sign(self, text: bytes) -> bytes: ...
