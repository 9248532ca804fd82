"""Who signs."""

from typing import Protocol


class Signer(Protocol):
    @property
    def key_id(self) -> str:
        """Tells this key from others."""
        ...

    def sign(self, text: bytes) -> bytes: ...


class VerificationKey(Protocol):
    """The public part of an Ed25519 key."""

    @property
    def key_id(self) -> str: ...

    @property
    def raw(self) -> bytes:
        """32 bytes (RFC 8032)."""
        ...
