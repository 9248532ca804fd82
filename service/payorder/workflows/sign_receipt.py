"""Sign a receipt: what it says, in a form that anyone can verify without asking."""

import base64
import json

from payorder.domain.receipt import SIGNATURE_TYPE, Receipt, SignedReceipt, statement
from payorder.ports.signing import Signer


class SignReceipt:
    """The same receipt has the same signature, because Ed25519 leaves nothing to chance (RFC 8032)."""

    def __init__(self, *, signer: Signer, public_url: str, seller: str | None) -> None:
        """`public_url`: what callers write before a path of the REST API; empty if nobody has said so."""
        self._signer = signer
        self._public_url = public_url
        self._seller = seller
        header = {"alg": "EdDSA", "kid": signer.key_id, "typ": SIGNATURE_TYPE}
        self._header = _base64url(json.dumps(header, separators=(",", ":")).encode())

    def __call__(self, receipt: Receipt) -> SignedReceipt:
        url = self._public_url + receipt.path
        # Compact serialization, RFC 7515, section 7.1.
        text = self._header + b"." + _base64url(statement(receipt, url, self._seller))
        signature = text + b"." + _base64url(self._signer.sign(text))
        return SignedReceipt(receipt, url, self._seller, signature.decode())


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
