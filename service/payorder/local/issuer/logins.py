"""What is remembered between the steps of a login: codes and refresh tokens, each good for one use. In memory alone."""

import time
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, TokenMixin

from payorder.local.issuer.accounts import Client, User

_KEPT_MAX = 10_000


@dataclass(slots=True)
class Login:
    """A user at a client, and what was granted. Its code and all its refresh tokens end with it."""

    user: User
    client_id: str
    scope: str
    expires_at: float
    has_ended: bool = False


@dataclass(slots=True)
class Kept:
    """Something that may be used once for a login, until `expires_at` (time.monotonic)."""

    login: Login
    expires_at: float
    was_used: bool = field(default=False, init=False)


@dataclass(slots=True)
class Code(Kept, AuthorizationCodeMixin):
    redirect_uri: str
    code_challenge: str
    code_challenge_method: str = "S256"

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.login.scope


@dataclass(slots=True)
class RefreshToken(Kept, TokenMixin):
    def check_client(self, client: Client) -> bool:
        return client.client_id == self.login.client_id

    def get_scope(self) -> str:
        return self.login.scope


Use = TypeVar("Use", bound=Kept)


class Secrets(Generic[Use]):
    """Secrets and what each stands for. A used one that comes again was stolen, then or now: it ends its login."""

    def __init__(self) -> None:
        self._kept: dict[str, Use] = {}

    def keep(self, secret: str, stands_for: Use) -> None:
        self._forget()
        self._kept[secret] = stands_for

    def find(self, secret: str, client: Client) -> Use | None:
        """None unless it is this client's and may still be used. Sources: RFC 6749 4.1.2, RFC 9700 4.14.2."""
        found = self._kept.get(secret)
        if found is None or found.login.client_id != client.client_id or found.expires_at <= time.monotonic():
            return None
        if found.was_used:
            found.login.has_ended = True
        return None if found.login.has_ended else found

    def _forget(self) -> None:
        now = time.monotonic()
        self._kept = {secret: kept for secret, kept in self._kept.items() if kept.expires_at > now}
        if len(self._kept) >= _KEPT_MAX:
            del self._kept[next(iter(self._kept))]
