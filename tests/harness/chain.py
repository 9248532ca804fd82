"""The audit log's chain, written a second time from what docs/reliability.md says of it."""

import hashlib
from collections.abc import Mapping
from typing import Any

CONTENT = ("chain", "kind", "object_id", "from_state", "to_state", "outcome", "actor", "request_id", "detail")
BEGINNING = b"\0" * 32


def hash_of(entry: Mapping[str, Any], before: bytes) -> bytes:
    content = hashlib.sha256(b"payorder.audit.1")
    for name in CONTENT:
        value = entry[name]
        text = b"" if value is None else value.encode("utf-8")
        content.update(b"\0" if value is None else b"\1" + len(text).to_bytes(4, "big") + text)
    own = hashlib.sha256(before)
    own.update(content.digest())
    own.update(entry["id"].encode("ascii"))
    for number in (entry["seq"], entry["at"]):
        own.update(number.to_bytes(8, "big"))
    return own.digest()
