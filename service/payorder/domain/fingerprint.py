"""What tells one card or bank account from another without being its number: a keyed hash (PCI DSS 4.0.1, 3.5.1.1)."""

import hashlib
import hmac

from payorder.domain.secret import Secret
from payorder.domain.source import Source

_PURPOSE = b"payorder.source-fingerprint.1"
_BYTES = 16


class SourceFingerprints:
    """HMAC-SHA256 under a key derived for this alone, cut to 16 bytes. Never of a CVC."""

    def __init__(self, secret: Secret) -> None:
        self._key = hmac.digest(secret.reveal().encode(), _PURPOSE, hashlib.sha256)

    def of(self, source: Source) -> bytes:
        return hmac.digest(self._key, source.identity().reveal().encode(), hashlib.sha256)[:_BYTES]
