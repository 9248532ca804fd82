"""Tokens of pages within one filter (AIP-158): opaque; within, an id, and a digest of what was asked for."""

import base64
import binascii
import hashlib
from uuid import UUID

from payorder.domain.errors import FieldFault, InvalidFields

_ID_BYTES, _DIGEST_BYTES = 16, 8


def to_token(after: str | None, wanted: object) -> str:
    """Empty on the last page. `wanted` is what was asked for, which prints the same whenever it is the same."""
    if after is None:
        return ""
    return base64.urlsafe_b64encode(UUID(after).bytes + _digest_of(wanted)).decode().rstrip("=")


def from_token(token: str, wanted: object) -> str | None:
    """None for an empty one. Raises InvalidFields for a token of another filter."""
    if not token:
        return None
    try:
        read = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except binascii.Error:
        read = b""
    if len(read) != _ID_BYTES + _DIGEST_BYTES or read[_ID_BYTES:] != _digest_of(wanted):
        raise InvalidFields([FieldFault("pageToken", "invalid_format", "is not a token of this list and this filter")])
    return str(UUID(bytes=read[:_ID_BYTES]))


def _digest_of(wanted: object) -> bytes:
    return hashlib.sha256(repr(wanted).encode()).digest()[:_DIGEST_BYTES]
