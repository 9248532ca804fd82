"""The client certificate that Envoy has verified, as access tokens name it (RFC 8705)."""

import base64
import re

from payorder.edge.metadata import metadata_values

# As Envoy writes it with SANITIZE_SET and no further details; `By` is of its own certificate.
_FORWARDED = re.compile('(?:By=[^;,"]*;)*Hash=([0-9a-f]{64})', re.ASCII)


def forwarded_certificate() -> str | None:
    """SHA-256 in base64url, without padding."""
    values = metadata_values("x-forwarded-client-cert")
    found = _FORWARDED.fullmatch(values[0]) if len(values) == 1 else None
    return base64.urlsafe_b64encode(bytes.fromhex(found[1])).decode().rstrip("=") if found else None
