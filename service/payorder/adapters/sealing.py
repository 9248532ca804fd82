"""Secrets at rest: encrypted with Fernet (AES-128-CBC and HMAC-SHA256), by keys that can be changed over."""

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from payorder.domain.secret import Secret


class FernetBox:
    """Implements payorder.ports.secret_box.SecretBox."""

    def __init__(self, keys: Sequence[Secret]) -> None:
        """The first key seals, all of them open: each is 32 bytes in URL-safe base64. Raises ValueError."""
        self._fernet = MultiFernet([Fernet(key.reveal()) for key in keys])

    def seal(self, secret: Secret) -> bytes:
        return self._fernet.encrypt(secret.reveal().encode())

    def open(self, sealed: bytes) -> Secret:
        try:
            return Secret(self._fernet.decrypt(sealed).decode())
        except InvalidToken:
            raise ValueError("sealed with a key that is not known any more") from None
