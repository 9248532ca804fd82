"""Access tokens that must not be accepted, each wrong in one way."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from payorder.config import DEVELOPMENT_ISSUER
from payorder.local.issuer import ALGORITHM, Issuer


def forged_tokens(issuer: Issuer) -> Mapping[str, str]:  # long: one table of tokens
    """What is wrong -> the token; the key is the issuer's own unless that is what is wrong."""
    key, key_id = issuer._key, issuer._key_id
    good = issuer.token(subject="alice", scope="write:orders")
    now = int(time.time())
    claims = {"iss": DEVELOPMENT_ISSUER, "aud": "payorder", "sub": "alice", "scope": "write:orders", "exp": now + 600}
    public_pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    foreign_key = ec.generate_private_key(ec.SECP256R1())
    foreign_jwk = jwt.algorithms.ECAlgorithm.to_jwk(foreign_key.public_key(), as_dict=True)

    def signed(changes: Mapping[str, Any], *, by: Any = key, **header: Any) -> str:
        """`...` takes a claim or a header away."""
        body = {name: value for name, value in (claims | changes).items() if value is not ...}
        headers = {"kid": key_id, "typ": "at+jwt"} | header
        return jwt.encode(body, by, ALGORITHM, headers={k: v for k, v in headers.items() if v is not ...})

    def unsigned(algorithm: str, signature: str = "") -> str:
        return ".".join([_part({"alg": algorithm, "typ": "at+jwt", "kid": key_id}), _part(claims), signature])

    def symmetric(secret: bytes) -> str:
        """PyJWT refuses to misuse a public key; an attacker does not."""
        text = ".".join([_part({"alg": "HS256", "typ": "at+jwt", "kid": key_id}), _part(claims)])
        digest = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(text.encode(), secret)
        return f"{text}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"

    return {
        "expired": signed({"exp": now - 60}),
        "without exp": signed({"exp": ...}),
        "exp as text": signed({"exp": str(now + 600)}),
        "exp in the year 9999": signed({"exp": 253402300799}),
        "not yet valid": signed({"nbf": now + 600}),
        "without iss": signed({"iss": ...}),
        "another iss": signed({"iss": "https://issuer.example"}),
        "iss with a slash more": signed({"iss": f"{DEVELOPMENT_ISSUER}/"}),
        "without aud": signed({"aud": ...}),
        "another aud": signed({"aud": "another-service"}),
        "without sub": signed({"sub": ...}),
        "empty sub": signed({"sub": ""}),
        "sub of control characters": signed({"sub": "a\nb"}),
        "an ID token": signed({"aud": "payorder-development"}, typ="JWT"),
        "of another type": signed({}, typ="secevent+jwt"),
        "with an unknown critical extension": signed({}, crit=["exp2"], exp2=1),
        "alg none": unsigned("none"),
        "alg nOnE": unsigned("nOnE"),
        "alg none with a signature": unsigned("none", good.rpartition(".")[2]),
        "HS256 with the public key": symmetric(public_pem),
        "HS256 with an empty key": symmetric(b""),
        "ES384 in the header": unsigned("ES384", good.rpartition(".")[2]),
        "signed by another key": signed({}, by=foreign_key),
        "signed by a key it brings": signed({}, by=foreign_key, jwk=foreign_jwk),
        "signed by a key at an address it names": signed({}, by=foreign_key, jku="http://169.254.169.254/jwks"),
        "with an unknown kid": signed({}, kid="' UNION SELECT 'x"),
        "without kid, by another key": signed({}, by=foreign_key, kid=...),
        "without signature": good.rpartition(".")[0] + ".",
        "of two parts": good.rpartition(".")[0],
        "with a claim changed": ".".join([good.split(".")[0], _part(claims | {"sub": "bob"}), good.split(".")[2]]),
        "that is no token": "4444333322221111",
        "that is empty": "",
    }


def _part(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
