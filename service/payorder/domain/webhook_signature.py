"""Signatures of deliveries: Standard Webhooks, and the documented X-Webhook-Signature over the same text.

What is signed is `{webhook-id}.{webhook-timestamp}.{body}`, with the bytes of the body as they are sent.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence

from payorder.domain.secret import Secret

ID = "webhook-id"
TIMESTAMP = "webhook-timestamp"
SIGNATURE = "webhook-signature"
DOCUMENTED_SIGNATURE = "x-webhook-signature"
TOLERANCE_SECONDS = 300

_PREFIX = "whsec_"
_KEY_LENGTH_MIN, _KEY_LENGTH_MAX = 24, 64


class NoWebhookSecret(ValueError):
    """Not `whsec_` and base64 of 24 to 64 bytes."""


class SignatureRefused(Exception):
    """Not signed with one of the secrets, not for this id, time and body, or not at about this time."""


def secret_of(key: bytes) -> Secret:
    """`key`: 24 to 64 random bytes."""
    return Secret(_PREFIX + base64.b64encode(key).decode())


def key_of(secret: Secret) -> bytes:
    """Raises NoWebhookSecret."""
    text = secret.reveal()
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise NoWebhookSecret from None
    if not text.startswith(_PREFIX) or not _KEY_LENGTH_MIN <= len(key) <= _KEY_LENGTH_MAX:
        raise NoWebhookSecret
    return key


def signed_headers(webhook_id: str, timestamp: int, body: bytes, secrets: Sequence[Secret]) -> dict[str, str]:
    """All headers of a delivery; `timestamp` in epoch seconds, `secrets` with the current one first.

    Raises NoWebhookSecret.
    """
    text = _text(webhook_id, timestamp, body)
    digests = [hmac.digest(key_of(secret), text, hashlib.sha256) for secret in secrets]
    signatures = " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
    return _headers(webhook_id, timestamp, signatures) | {DOCUMENTED_SIGNATURE: f"sha256={digests[0].hex()}"}


def callback_headers(webhook_id: str, timestamp: int, body: bytes, sign: Callable[[bytes], bytes]) -> dict[str, str]:
    """All headers of a callback, whose receiver has no secret; `sign` is Ed25519 with the service's own key."""
    signature = base64.b64encode(sign(_text(webhook_id, timestamp, body))).decode()
    return _headers(webhook_id, timestamp, f"v1a,{signature}")


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret], *, now: float) -> None:
    """Raises SignatureRefused; `headers` by names in lower case, `now` in epoch seconds.

    It does not say whether this delivery was seen before: that is what its webhook-id is for.
    """
    timestamp = headers.get(TIMESTAMP, "")
    if not (timestamp.isascii() and timestamp.isdigit()) or abs(now - int(timestamp[:12])) > TOLERANCE_SECONDS:
        raise SignatureRefused
    text = f"{headers.get(ID, '')}.{timestamp}.".encode() + body
    given = [part.removeprefix("v1,") for part in headers.get(SIGNATURE, "").split(" ") if part.startswith("v1,")]
    expected = [base64.b64encode(hmac.digest(key_of(secret), text, hashlib.sha256)) for secret in secrets]
    if not any(hmac.compare_digest(one, other.encode()) for one in expected for other in given):
        raise SignatureRefused


def _text(webhook_id: str, timestamp: int, body: bytes) -> bytes:
    return f"{webhook_id}.{timestamp}.".encode() + body


def _headers(webhook_id: str, timestamp: int, signatures: str) -> dict[str, str]:
    return {ID: webhook_id, TIMESTAMP: str(timestamp), SIGNATURE: signatures}
