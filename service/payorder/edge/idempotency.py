"""The Idempotency-Key of a call (IETF draft idempotency-key-header): header over REST, metadata over gRPC."""

import hashlib
import hmac
import re

from google.protobuf.message import Message

from payments.v1.payment_service_pb2 import PayOrderRequest
from payorder.domain.errors import MalformedRequest
from payorder.domain.idempotency import IdempotencyKey
from payorder.domain.secret import Secret
from payorder.edge.metadata import metadata_values
from payorder.edge.replies import to_bytes
from payorder.edge.validation import looks_like_a_card_number

METADATA_KEY = "idempotency-key"

# 1 to 255 printable ASCII characters; a structured-field string is quoted, and means the same as what is inside.
_BARE = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?", re.ASCII)
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])+)"', re.ASCII)
_KEY_LENGTH_MAX = 255


class IdempotencyKeys:
    """Reads keys and takes fingerprints: HMAC-SHA256, because a bare hash of a card number could be searched."""

    def __init__(self, fingerprint_keys: tuple[Secret, ...]) -> None:
        """The first key is the current one; with the others the requests of before are still recognised."""
        self._fingerprint_keys = [key.reveal().encode() for key in fingerprint_keys]

    def of(self, request: Message) -> IdempotencyKey | None:
        """None for a call without a key. Raises MalformedRequest for more than one, or one of another form."""
        values = metadata_values(METADATA_KEY)
        if not values:
            return None
        if len(values) > 1:
            raise MalformedRequest("There is more than one idempotency key.")
        current, *previous = self._fingerprints(request)
        return IdempotencyKey(_parsed(values[0]), current, tuple(previous))

    def _fingerprints(self, request: Message) -> list[str]:
        """Of the whole request but the CVC, which may differ and must not be kept in any form."""
        if isinstance(request, PayOrderRequest):
            without_cvc = PayOrderRequest()
            without_cvc.CopyFrom(request)
            without_cvc.payment.source.ClearField("cvc")
            request = without_cvc
        text = request.DESCRIPTOR.full_name.encode() + b"\0" + to_bytes(request)
        return [hmac.new(key, text, hashlib.sha256).hexdigest() for key in self._fingerprint_keys]


def _parsed(value: str) -> str:
    quoted = _QUOTED.fullmatch(value)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value
    is_formed = _BARE.fullmatch(key) is not None and len(key) <= _KEY_LENGTH_MAX
    if not is_formed or (not quoted and '"' in key) or looks_like_a_card_number(key):
        raise MalformedRequest("The idempotency key is not 1 to 255 printable ASCII characters.")
    return key
