"""A seal over the audit log: what it held between two moments, signed, so that only the key can make it again."""

import hashlib
from dataclasses import dataclass

_VERSION = b"payorder.seal.1"
BEGINNING = bytes(32)


@dataclass(frozen=True, slots=True)
class Seal:
    """Of the entries made from `from_at` until before `until_at`, in epoch milliseconds of the database's clock.

    `digest` is the SHA-256 of their hashes in the order of their ids; `prev_hash` that of the seal before, or zeros.
    """

    number: int
    from_at: int
    until_at: int
    entry_count: int
    digest: bytes
    prev_hash: bytes
    key_id: str
    signature: bytes = b""

    @property
    def text(self) -> bytes:
        """What is signed: numbers with 8 bytes, big-endian; the key's id comes last."""
        numbers = (self.number, self.from_at, self.until_at, self.entry_count)
        begin = _VERSION + b"".join(number.to_bytes(8, "big") for number in numbers)
        return begin + self.digest + self.prev_hash + self.key_id.encode()

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.text + self.signature).digest()
