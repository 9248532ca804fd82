"""A signing key in a folder, and tokens signed with it.

The folder has `key.pem`, which signs, `next.pem`, which will, and `jwks.json`, where both are published, so that who
has kept the key set for a while knows the next key already. A retired key stays there while its tokens may be valid.
"""

import base64
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from payorder.local.private_keys import make_if_missing

ALGORITHM = "ES256"
HOST = "127.0.0.1"
PUBLIC_CLIENT = "payorder-development"
TOKEN_SECONDS = 24 * 60 * 60 - 60

# Longer than a token is valid, with the leeway of who verifies it.
_RETIRED_SECONDS = 25 * 60 * 60

Jwk = dict[str, str | int]


def url_at(port: int) -> str:
    """Where an issuer is served: on this machine, and nowhere else."""
    return f"http://{HOST}:{port}"


class Issuer:
    """Signs access tokens with the key in `folder`; what is missing there is made by the first use.

    `url` is where its key set is served from now on, and the name in its tokens. A folder that was never given one
    signs as DEVELOPMENT_ISSUER, and its key set is the file.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.jwks_path = folder / "jwks.json"
        self._key_path = folder / "key.pem"
        self._next_path = folder / "next.pem"
        self.url = _remembered(folder / "url", url)
        # All three, and no shortcut: each makes its key where there is none.
        if any([_make_key(self._key_path), _make_key(self._next_path), not self.jwks_path.exists()]):
            _publish(self.jwks_path, [_load(self._key_path), _load(self._next_path)], self._retired())
        self._key = _load(self._key_path)
        self._key_id = _thumbprint(self._key)

    @property
    def name(self) -> str:
        """`iss` of its tokens."""
        if self.url is not None:
            return self.url
        from payorder.config import DEVELOPMENT_ISSUER  # noqa: PLC0415 - settings take a quarter of the server's start

        return DEVELOPMENT_ISSUER

    @property
    def key_set(self) -> str:
        """Where its key set is: an URL, or an absolute path."""
        return f"{self.url}/jwks" if self.url else str(self.jwks_path.resolve())

    def token(
        self,
        *,
        subject: str,
        scope: str,
        audience: str = "payorder",
        client: str = PUBLIC_CLIENT,
        seconds: int = TOKEN_SECONDS,
    ) -> str:
        """An access token (RFC 9068) that is valid for `seconds` from now."""
        now = int(time.time())
        claims = {
            "iss": self.name,
            "aud": audience,
            "sub": subject,
            "scope": scope,
            "iat": now,
            "exp": now + seconds,
            "jti": str(uuid4()),
            "client_id": client,
        }
        return jwt.encode(claims, self._key, ALGORITHM, headers={"kid": self._key_id, "typ": "at+jwt"})

    def rotate(self) -> None:
        """Sign with the next key from now on, and publish the one after it. Who holds an `Issuer` must make another."""
        following = self._next_path.with_name("following.pem")
        following.unlink(missing_ok=True)
        _make_key(following)
        retired = _published(self._key) | {"exp": int(time.time()) + _RETIRED_SECONDS}
        # Published first: no token may be signed with a key that nobody can find.
        _publish(self.jwks_path, [_load(self._next_path), _load(following)], [retired, *self._retired()])
        # Each file is there all the while, so that who reads the folder meanwhile makes none.
        signing = self._key_path.with_name("signing.pem")
        signing.unlink(missing_ok=True)
        signing.hardlink_to(self._next_path)
        signing.replace(self._key_path)
        following.replace(self._next_path)

    def _retired(self) -> list[Jwk]:
        """Published keys that sign no more, while a token of theirs may be valid."""
        if not self.jwks_path.exists():
            return []
        keys: list[Jwk] = json.loads(self.jwks_path.read_bytes())["keys"]
        return [key for key in keys if int(key.get("exp", 0)) > time.time()]


def _remembered(path: Path, url: str | None) -> str | None:
    if url is not None:
        _replace(path, url)
    return path.read_text(encoding="utf-8") if path.exists() else None


def _make_key(path: Path) -> bool:
    """Whether there was none."""
    return make_if_missing(path, lambda: ec.generate_private_key(ec.SECP256R1()))


def _load(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _publish(path: Path, keys: Iterable[ec.EllipticCurvePrivateKey], retired: Iterable[Jwk]) -> None:
    _replace(path, json.dumps({"keys": [*map(_published, keys), *retired]}, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    """At once: a reader sees the old text or the new one."""
    written = path.with_name(f"{path.name}.{os.getpid()}")
    written.write_text(text, encoding="utf-8")
    written.replace(path)


def _published(key: ec.EllipticCurvePrivateKey) -> Jwk:
    return {**_public_jwk(key), "kid": _thumbprint(key), "use": "sig", "alg": ALGORITHM}


def _public_jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    return ECAlgorithm.to_jwk(key.public_key(), as_dict=True)


def _thumbprint(key: ec.EllipticCurvePrivateKey) -> str:
    """RFC 7638: the same key always has the same id."""
    members = {name: _public_jwk(key)[name] for name in ("crv", "kty", "x", "y")}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
