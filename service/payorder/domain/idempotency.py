"""Idempotency keys: the same request again gets the same answer, byte for byte (contract section 4)."""

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from payorder.domain.errors import IdempotencyKeyReused

# Afterwards a key may be used for something else.
_KEPT = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What the caller sent (1 to 255 printable ASCII characters), and a keyed digest of the request without its CVC.

    `previous_fingerprints` are the same digest under keys that were in use before.
    """

    key: str
    fingerprint: str
    previous_fingerprints: tuple[str, ...] = ()

    def refuse_other_request(self, fingerprint: str) -> None:
        """`fingerprint` is that of the request which used this key first. Raises IdempotencyKeyReused."""
        ours = (self.fingerprint, *self.previous_fingerprints)
        if not any(hmac.compare_digest(each, fingerprint) for each in ours):
            raise IdempotencyKeyReused


def has_expired(used_at: datetime, now: datetime) -> bool:
    return now - used_at > _KEPT


@dataclass(frozen=True, slots=True)
class Reply:
    """A final answer as it goes over the wire: `code` is the gRPC status, `body` the resource or google.rpc.Status."""

    code: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Replay:
    """An answer that was given before, and the id of the payment or order that it was about."""

    resource_id: str
    reply: Reply
