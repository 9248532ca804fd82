"""One table of tokens for every door: those that are accepted, and those that are wrong in one way.

Each is made when it is asked for, because its times are near.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization

from payorder.config import DEVELOPMENT_ISSUER
from support.issuers import Key, Signer, encoded, jwk

Table = Mapping[str, Callable[[Signer], str]]

DAY = 24 * 60 * 60
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
RSA_HEADER = {"kid": "key-RS256", "typ": "at+jwt"}


def now() -> int:
    return int(time.time())


def unsigned(s: Signer, algorithm: str, signature: str = "") -> str:
    return f"{part({'alg': algorithm, 'typ': 'at+jwt', 'kid': 'key-ES256'})}.{part(s.claims())}.{signature}"


def symmetric(s: Signer, secret: bytes, key_id: str = "key-ES256") -> str:
    """PyJWT refuses to misuse a public key; an attacker does not."""
    text = f"{part({'alg': 'HS256', 'typ': 'at+jwt', 'kid': key_id})}.{part(s.claims())}"
    digest = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(text.encode(), secret)
    return f"{text}.{encoded(digest)}"


def public_pem(key: Key) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def changed(token: str, claims: Mapping[str, Any]) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{part(claims)}.{signature}"


def other_signature(s: Signer) -> str:
    """(r, n - s) is as good as (r, s): whoever denies a token by its text denies only one of two."""
    text, _, signature = s.token().rpartition(".")
    data = jwt.utils.base64url_decode(signature)
    other = P256_ORDER - int.from_bytes(data[32:], "big")
    return f"{text}.{encoded(data[:32] + other.to_bytes(32, 'big'))}"


def part(value: Mapping[str, Any]) -> str:
    return encoded(json.dumps(value).encode())


ACCEPTED: Table = {
    "RS256": lambda s: s.token("RS256"),
    "ES256": lambda s: s.token("ES256"),
    "EdDSA": lambda s: s.token("EdDSA"),
    "typ in another case": lambda s: s.token(header={"typ": "AT+JWT"}),
    "typ with its prefix": lambda s: s.token(header={"typ": "application/at+jwt"}),
    "our audience among others": lambda s: s.token(aud=["another", "payorder"]),
    "expired within the leeway": lambda s: s.token(exp=now() - 5),
    "valid for almost a day": lambda s: s.token(exp=now() + DAY - 60),
    "expiry with a fraction": lambda s: s.token(exp=time.time() + 600.5),
    "further claims": lambda s: s.token(act={"sub": "x"}, email="a@example.com", admin=True),
    "scopes in a list": lambda s: s.token(scope=["read:orders", "write:orders"]),
    "scp": lambda s: s.token(scope=..., scp="read:orders write:orders"),
    "scp in a list": lambda s: s.token(scope=..., scp=["read:orders", "write:orders"]),
    "ES256 with the other of its two signatures": other_signature,
}

REFUSED: Table = {
    # Times
    "expired": lambda s: s.token(exp=now() - 60),
    "exp 0": lambda s: s.token(exp=0),
    "exp negative": lambda s: s.token(exp=-1),
    "exp beyond the longest lifetime": lambda s: s.token(exp=now() + DAY + 600),
    "exp as true": lambda s: s.with_claim("exp", "true"),
    "exp null": lambda s: s.with_claim("exp", "null"),
    "exp a list": lambda s: s.with_claim("exp", f"[{now() + 600}]"),
    "exp an object": lambda s: s.with_claim("exp", "{}"),
    "exp NaN": lambda s: s.with_claim("exp", "NaN"),
    "exp Infinity": lambda s: s.with_claim("exp", "Infinity"),
    "exp 1e400": lambda s: s.with_claim("exp", "1e400"),
    "exp of 400 digits": lambda s: s.with_claim("exp", "9" * 400),
    "exp of 5000 digits": lambda s: s.with_claim("exp", "9" * 5000),
    "exp as text": lambda s: s.token(exp=str(now() + 600)),
    "nbf in the future": lambda s: s.token(nbf=now() + 600),
    "nbf as text": lambda s: s.token(nbf="soon"),
    "nbf Infinity": lambda s: s.with_claim("nbf", "Infinity"),
    "iat in the future": lambda s: s.token(iat=now() + 600),
    "iat Infinity": lambda s: s.with_claim("iat", "Infinity"),
    "expired by a second and the leeway": lambda s: s.token(exp=now() - 32),
    "without exp": lambda s: s.token(exp=...),
    "exp in the year 9999": lambda s: s.token(exp=253402300799),
    "nbf as a number in text": lambda s: s.token(nbf=str(now() - 600)),
    "iat as a number in text": lambda s: s.token(iat=str(now() - 600)),
    # Who and for whom
    "sub a number": lambda s: s.with_claim("sub", "1"),
    "sub null": lambda s: s.with_claim("sub", "null"),
    "sub a list": lambda s: s.with_claim("sub", '["alice"]'),
    "sub of 256 characters": lambda s: s.token(sub="a" * 256),
    "sub of spaces that break a line": lambda s: s.token(sub="alice\u2028"),
    "sub of half a character": lambda s: s.with_claim("sub", '"\\ud800"'),
    "iss a list": lambda s: s.with_claim("iss", f'["{s.issuer}"]'),
    "iss a look-alike": lambda s: s.token(iss=s.issuer.replace(".", "\uff0e")),
    "iss in another case": lambda s: s.token(iss=s.issuer.upper()),
    "iss with a space": lambda s: s.token(iss=f"{s.issuer} "),
    "aud a number": lambda s: s.with_claim("aud", "1"),
    "aud a list in a list": lambda s: s.with_claim("aud", '[["payorder"]]'),
    "aud empty": lambda s: s.token(aud=[]),
    "aud in another case": lambda s: s.token(aud="PayOrder"),
    "jti a number": lambda s: s.with_claim("jti", "1"),
    "scope a number": lambda s: s.with_claim("scope", "1"),
    "scope an object": lambda s: s.with_claim("scope", '{"write:orders": true}'),
    "scope a list of numbers": lambda s: s.with_claim("scope", "[1]"),
    "scope null": lambda s: s.with_claim("scope", "null"),
    "without sub": lambda s: s.token(sub=...),
    "sub of the service itself": lambda s: s.token(sub="payorder"),
    "sub empty": lambda s: s.token(sub=""),
    "sub of control characters": lambda s: s.token(sub="a\nb"),
    "without iss": lambda s: s.token(iss=...),
    "iss with a slash more": lambda s: s.token(iss=f"{s.issuer}/"),
    "iss the development issuer": lambda s: s.token(iss=DEVELOPMENT_ISSUER),
    "iss a longer host": lambda s: s.token(iss=f"{s.issuer}.example"),
    "without aud": lambda s: s.token(aud=...),
    "aud another service": lambda s: s.token(aud="another-service"),
    "bound to a key of its client's (DPoP)": lambda s: s.token(
        cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}
    ),
    "bound to a certificate that was not shown": lambda s: s.token(cnf={"x5t#S256": "A" * 43}),
    "bound to a certificate and a key": lambda s: s.token(cnf={"x5t#S256": "A" * 43, "jkt": "B" * 43}),
    "bound to nothing that is said": lambda s: s.token(cnf={}),
    "cnf null": lambda s: s.with_claim("cnf", "null"),
    "cnf a text": lambda s: s.token(cnf="A" * 43),
    # Keys
    "kid of an algorithm that is not its": lambda s: s.token("RS256", header={"kid": "key-ES256"}),
    "ES256 for the RSA key": lambda s: s.token("ES256", header={"kid": "key-RS256"}),
    "PS256 for the RS256 key": lambda s: jwt.encode(s.claims(), s.keys["RS256"], "PS256", headers=RSA_HEADER),
    "RS512 for the RS256 key": lambda s: jwt.encode(s.claims(), s.keys["RS256"], "RS512", headers=RSA_HEADER),
    "another key": lambda s: s.token(by=s.stranger),
    "no kid": lambda s: s.token(header={"kid": ...}),
    "kid null": lambda s: s.with_header('{"alg":"ES256","typ":"at+jwt","kid":null}'),
    "kid a number": lambda s: s.with_header('{"alg":"ES256","typ":"at+jwt","kid":1}'),
    "kid a list": lambda s: s.with_header('{"alg":"ES256","typ":"at+jwt","kid":["key-ES256"]}'),
    "kid a path": lambda s: s.token(header={"kid": "../../../../dev/null"}),
    "kid with a null byte": lambda s: s.token(header={"kid": "key-ES256\0"}),
    "kid with a space": lambda s: s.token(header={"kid": "key-ES256 "}),
    "kid SQL": lambda s: s.token(header={"kid": "' UNION SELECT 'x"}),
    "kid of 257 characters": lambda s: s.token(header={"kid": "k" * 257}),
    "kid of 64 KB": lambda s: s.token(header={"kid": "k" * 65536}),
    "x5u": lambda s: s.token(by=s.stranger, header={"x5u": "http://169.254.169.254/chain.pem"}),
    "x5c": lambda s: s.token(by=s.stranger, header={"x5c": ["MII"]}),
    "x5u at an address that listens": lambda s: s.token(by=s.stranger, header={"x5u": s.foreign_url}),
    "x5u, though the key is ours": lambda s: s.token(header={"x5u": s.foreign_url}),
    "jku in the network inside": lambda s: s.token(by=s.stranger, header={"jku": "http://169.254.169.254/jwks"}),
    "jku at an address that listens": lambda s: s.token(by=s.stranger, header={"jku": s.foreign_url}),
    "jku and a new kid": lambda s: s.token(by=s.stranger, header={"jku": s.foreign_url, "kid": "new"}),
    "jku, though the key is ours": lambda s: s.token(header={"jku": s.foreign_url}),
    "kid an address that listens": lambda s: s.token(by=s.stranger, header={"kid": s.foreign_url}),
    "jwk": lambda s: s.token(by=s.stranger, header={"jwk": jwk("ES256", s.stranger)}),
    "jwk, though the key is ours": lambda s: s.token(header={"jwk": jwk("ES256", s.keys["ES256"])}),
    # Algorithms
    "alg none": lambda s: unsigned(s, "none"),
    "alg None": lambda s: unsigned(s, "None"),
    "alg nOnE": lambda s: unsigned(s, "nOnE"),
    "alg none with a signature": lambda s: unsigned(s, "none", s.token().rpartition(".")[2]),
    "alg empty": lambda s: unsigned(s, ""),
    "ES384 with a signature of ES256": lambda s: unsigned(s, "ES384", s.token().rpartition(".")[2]),
    "HS256 with the public key": lambda s: symmetric(s, public_pem(s.keys["ES256"])),
    "HS256 with the public RSA key": lambda s: symmetric(s, public_pem(s.keys["RS256"]), "key-RS256"),
    "HS256 with an empty key": lambda s: symmetric(s, b""),
    "HS256 with a short key": lambda s: symmetric(s, b"k" * 16),
    "HS256 of an unknown key": lambda s: symmetric(s, b"k" * 32, "new"),
    # Headers
    "alg a list": lambda s: s.with_header('{"alg":["ES256"],"typ":"at+jwt","kid":"key-ES256"}'),
    "alg an object": lambda s: s.with_header('{"alg":{},"typ":"at+jwt","kid":"key-ES256"}'),
    "alg null": lambda s: s.with_header('{"alg":null,"typ":"at+jwt","kid":"key-ES256"}'),
    "alg in another case": lambda s: s.with_header('{"alg":"es256","typ":"at+jwt","kid":"key-ES256"}'),
    "typ a list": lambda s: s.with_header('{"alg":"ES256","typ":["at+jwt"],"kid":"key-ES256"}'),
    "typ refresh+jwt": lambda s: s.token(header={"typ": "refresh+jwt"}),
    "typ id_token": lambda s: s.token(header={"typ": "id_token"}),
    "crit a string": lambda s: s.with_header('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256","crit":"exp"}'),
    "crit empty": lambda s: s.with_header('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256","crit":[]}'),
    "crit unknown": lambda s: s.with_header('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256","crit":["x"],"x":1}'),
    "b64 false": lambda s: s.with_header('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256","crit":["b64"],"b64":false}'),
    "header a list": lambda s: s.with_header("[]"),
    "header a text": lambda s: s.with_header('"ES256"'),
    "header null": lambda s: s.with_header("null"),
    "header no JSON": lambda s: s.with_header("{"),
    "header empty": lambda s: s.with_header(""),
    "header nested deeply": lambda s: s.with_header("[" * 4000),
    "typ JWT": lambda s: s.token(header={"typ": "JWT"}),
    "an ID token for us": lambda s: s.token(header={"typ": "JWT"}, nonce="n", at_hash="h"),
    "an ID token for its client": lambda s: s.token(header={"typ": "JWT"}, aud="client"),
    "without typ": lambda s: s.token(header={"typ": ...}),
    "typ null": lambda s: s.with_header('{"alg":"ES256","typ":null,"kid":"key-ES256"}'),
    "typ secevent+jwt": lambda s: s.token(header={"typ": "secevent+jwt"}),
    "typ dpop+jwt": lambda s: s.token(header={"typ": "dpop+jwt"}),
    # Bodies
    "body a list": lambda s: s.raw('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256"}', "[]"),
    "body null": lambda s: s.raw('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256"}', "null"),
    "body no JSON": lambda s: s.raw('{"alg":"ES256","typ":"at+jwt","kid":"key-ES256"}', "{"),
    "body nested deeply": lambda s: s.with_claim("x", "[" * 2000 + "]" * 2000),
    "body nested too deeply for its length": lambda s: s.with_claim("x", "[" * 10000 + "]" * 10000),
    "body changed": lambda s: changed(s.token(), s.claims(sub="bob")),
    "body an object in an object, deeply": lambda s: s.with_claim("x", '{"x":' * 1000 + "1" + "}" * 1000),
    # Forms
    "1 MB": lambda s: "a" * 1_000_000,
    "just too long": lambda s: s.token(x="x" * 8192),
    "dots": lambda s: "." * 8000,
    "one part": lambda s: "abc",
    "four parts": lambda s: s.token() + ".abc",
    "five parts, as if encrypted": lambda s: "a.b.c.d.e",
    "padding": lambda s: s.token() + "=",
    "a line break": lambda s: s.token() + "\n",
    "a space within": lambda s: s.token().replace(".", ". "),
    "no base64": lambda s: "!!.!!.!!",
    "not ASCII": lambda s: "\u00e9.\u00e9.\u00e9",
    "full-width": lambda s: "\uff41.\uff42.\uff43",
    "half a character": lambda s: "\ud800.\ud800.\ud800",
    "empty": lambda s: "",
    "opaque": lambda s: "4444333322221111",
    "two parts": lambda s: s.token().rpartition(".")[0],
    "without signature": lambda s: s.token().rpartition(".")[0] + ".",
    "signature cut": lambda s: s.token()[:-4],
    "padded": lambda s: s.token() + "==",
}


# Values of `authorization`; {token} is a good one.
AUTHORIZATIONS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "empty": ("",),
    "Bearer alone": ("Bearer",),
    "Bearer and a space": ("Bearer ",),
    "Bearer twice": ("Bearer Bearer {token}",),
    "Basic": ("Basic {token}",),
    "no scheme": ("{token}",),
    "another scheme": ("Token {token}",),
    "Bearer with a colon": ("Bearer: {token}",),
    "two tokens": ("Bearer {token} {token}",),
    "two, the same": ("Bearer {token}", "Bearer {token}"),
    "two, written differently": ("bearer {token}", "Bearer {token}"),
    "in a list": ("Bearer {token}, Bearer {token}",),
    "quoted": ('Bearer "{token}"',),
}
