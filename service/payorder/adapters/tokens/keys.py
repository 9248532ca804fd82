"""JSON Web Key Sets (RFC 7517): the keys of an issuer that may verify a token, each with one algorithm."""

from collections.abc import Mapping
from typing import Any

from jwt import PyJWK
from jwt.exceptions import PyJWTError

# By key type and curve. A key that names its algorithm must name this one.
_ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
ALGORITHMS = frozenset(_ALGORITHMS.values())

# By key id and algorithm.
Keys = Mapping[tuple[str, str], PyJWK]


class NoKeySet(Exception):
    """What was read is no key set, or none with a key for us in it. The text says why and quotes nothing."""


def keys_of(key_set: object) -> Keys:
    """Raises NoKeySet."""
    members = key_set.get("keys") if isinstance(key_set, dict) else None
    if not isinstance(members, list):
        raise NoKeySet("no key set")
    usable = [key for key in map(_usable, members) if key is not None]
    if not usable:
        raise NoKeySet("no usable key in the set")
    return {(str(key.key_id), key.algorithm_name): key for key in usable}


def _usable(member: Any) -> PyJWK | None:
    """None for a key that is not for us: it is no fault of the others in the set (RFC 7517, section 5)."""
    try:
        algorithm = _ALGORITHMS[member["kty"], member.get("crv")]
        if not isinstance(member["kid"], str) or not _is_for_signatures(member, algorithm):
            return None
        key = PyJWK(member, algorithm)
    except (PyJWTError, KeyError, ValueError, TypeError, AttributeError):
        return None
    return None if key.Algorithm.check_key_length(key.key) else key


def _is_for_signatures(member: dict[str, Any], algorithm: str) -> bool:
    return (
        member.get("alg", algorithm) == algorithm
        and member.get("use", "sig") == "sig"
        and "verify" in member.get("key_ops", ("verify",))
    )
