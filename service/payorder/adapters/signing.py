"""Ed25519 (RFC 8032) keys in PEM files: one that signs, and those that may have signed."""

import hashlib
import json
from pathlib import Path

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class NoSigningKey(Exception):
    """The file is not to be read, or holds no Ed25519 key."""


class NotSigned(Exception):
    """Not a compact JWS of that key, to the last bit."""


class Ed25519Signer:
    """Implements payorder.ports.signing.Signer."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = PublicKey(key.public_key())

    @classmethod
    def read(cls, path: Path) -> "Ed25519Signer":
        """`path`: a private key, PKCS #8 without a password. Raises NoSigningKey."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise NoSigningKey from error
        if not isinstance(key, Ed25519PrivateKey):
            raise NoSigningKey
        return cls(key)

    @classmethod
    def generate(cls) -> "Ed25519Signer":
        return cls(Ed25519PrivateKey.generate())

    @property
    def key_id(self) -> str:
        return self.public_key.key_id

    def sign(self, text: bytes) -> bytes:
        return self._key.sign(text)


class PublicKey:
    """`key_id` is the beginning of its SHA-256, in hexadecimal. Implements payorder.ports.signing.VerificationKey."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self.raw = key.public_bytes_raw()
        self.key_id = hashlib.sha256(self.raw).hexdigest()[:16]

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

    def payload_of(self, jws: str) -> bytes:
        """What was signed, in a compact JWS (RFC 7515). Raises NotSigned."""
        try:
            payload: bytes = jwt.PyJWS().decode(jws, self._key, algorithms=["EdDSA"])
        except jwt.InvalidTokenError as error:
            raise NotSigned from error
        return payload


def read_key_set(path: Path) -> list[PublicKey]:
    """The Ed25519 keys of a JWK Set (RFC 7517, RFC 8037). Raises NoSigningKey, also where there is none."""
    try:
        keys = jwt.PyJWKSet.from_dict(json.loads(path.read_bytes())).keys
    except (OSError, ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise NoSigningKey from error
    found = [PublicKey(key.key) for key in keys if isinstance(key.key, Ed25519PublicKey)]
    if not found:
        raise NoSigningKey
    return found
