"""Ed25519 (RFC 8032) keys in PEM files: one that signs, and those that may have signed."""

import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class NoSigningKey(Exception):
    """The file is not to be read, or holds no Ed25519 key."""


class Ed25519Signer:
    """Implements payorder.ports.signing.Signer."""

    def __init__(self, path: Path) -> None:
        """`path`: a private key, PKCS #8 without a password. Raises NoSigningKey."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise NoSigningKey from error
        if not isinstance(key, Ed25519PrivateKey):
            raise NoSigningKey
        self._key = key
        self.public_key = PublicKey(key.public_key())

    @property
    def key_id(self) -> str:
        return self.public_key.key_id

    def sign(self, text: bytes) -> bytes:
        return self._key.sign(text)


class PublicKey:
    """`key_id` is the beginning of its SHA-256, in hexadecimal."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.key_id = hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]

    @classmethod
    def read(cls, path: Path) -> "PublicKey":
        """Raises NoSigningKey."""
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise NoSigningKey from error
        if not isinstance(key, Ed25519PublicKey):
            raise NoSigningKey
        return cls(key)

    def has_signed(self, text: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, text)
        except InvalidSignature:
            return False
        return True
