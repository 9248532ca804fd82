"""The development issuer: a key of its own in the data folder, and tokens signed with it. Refused in production."""

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from payorder.config import DEVELOPMENT_ISSUER

ALGORITHM = "ES256"
TOKEN_SECONDS = 24 * 60 * 60 - 60


class Issuer:
    """Key and key set under `folder`; both are made by the first use and then stay."""

    def __init__(self, folder: Path) -> None:
        self._key_path = folder / "key.pem"
        self.jwks_path = folder / "jwks.json"
        if not self._key_path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _make_key(self._key_path)
        key = serialization.load_pem_private_key(self._key_path.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self._key_id = _thumbprint(key)
        if not self.jwks_path.exists():
            self.jwks_path.write_text(json.dumps(self._key_set(), indent=2) + "\n", encoding="utf-8")

    def token(self, *, subject: str, scope: str, audience: str = "payorder", seconds: int = TOKEN_SECONDS) -> str:
        """An access token (RFC 9068) that is valid for `seconds` from now."""
        now = int(time.time())
        claims = {
            "iss": DEVELOPMENT_ISSUER,
            "aud": audience,
            "sub": subject,
            "scope": scope,
            "iat": now,
            "exp": now + seconds,
            "jti": str(uuid4()),
            "client_id": "payorder-development",
        }
        return jwt.encode(claims, self._key, ALGORITHM, headers={"kid": self._key_id, "typ": "at+jwt"})

    def _key_set(self) -> dict[str, object]:
        return {"keys": [_public_jwk(self._key) | {"kid": self._key_id, "use": "sig", "alg": ALGORITHM}]}


def _make_key(path: Path) -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)


def _public_jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    return ECAlgorithm.to_jwk(key.public_key(), as_dict=True)


def _thumbprint(key: ec.EllipticCurvePrivateKey) -> str:
    """RFC 7638: the same key always has the same id."""
    members = {name: _public_jwk(key)[name] for name in ("crv", "kty", "x", "y")}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
