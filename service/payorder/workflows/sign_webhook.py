"""Sign what goes out: with the secrets that its endpoint shares with us, or, for a callback, with the service's key."""

from collections.abc import Mapping
from functools import lru_cache

from payorder.domain.secret import Secret
from payorder.domain.webhook import Dispatch
from payorder.domain.webhook_signature import callback_headers, signed_headers
from payorder.ports.clock import Clock
from payorder.ports.secret_box import SecretBox
from payorder.ports.signing import Signer

_SECRETS_KEPT = 4096


class NoCallbackKey(Exception):
    """A callback is to be signed, and there is no key for it."""


class SignWebhook:
    """`signer` is for callbacks."""

    def __init__(self, *, box: SecretBox, signer: Signer | None, clock: Clock) -> None:
        self._signer = signer
        self._clock = clock

        # To open one costs more than all else that is done for a delivery.
        @lru_cache(_SECRETS_KEPT)
        def opened(sealed: bytes) -> Secret:
            return box.open(sealed)

        self._opened = opened

    def __call__(self, dispatch: Dispatch) -> Mapping[str, str]:
        """Raises ValueError for a secret that cannot be opened, and NoCallbackKey."""
        timestamp = int(self._clock.now().timestamp())
        if dispatch.sealed_secrets:
            secrets = [self._opened(sealed) for sealed in dispatch.sealed_secrets]
            return signed_headers(dispatch.event_id, timestamp, dispatch.body, secrets)
        if self._signer is None:
            raise NoCallbackKey
        return callback_headers(dispatch.event_id, timestamp, dispatch.body, self._signer.sign)
