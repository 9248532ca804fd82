"""Who may ask the development issuer for tokens: made-up users, and clients that they use. Nothing here is secret."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest

from authlib.oauth2.rfc6749 import ClientMixin

from payorder.local.issuer.signing import PUBLIC_CLIENT

# What each scope allows, as the login page says it.
SCOPES: Mapping[str, str] = {
    "read:orders": "read your orders and payments",
    "write:orders": "make, pay and cancel orders for you",
    "webhooks": "send the events of your orders to URLs, for you",
    "admin": "administer the orders of everybody",
    "act:any-owner": "act on the orders of everybody, as a service does",
}
_ORDERS = frozenset({"read:orders", "write:orders"})
_USERS = _ORDERS | {"webhooks"}

PASSWORD = "development"  # noqa: S105 - everybody's, and in the README
SERVICE_SECRET = "payorder-service-development"  # noqa: S105 - likewise

# RFC 8252 7.3: on this machine a client may listen on any port.
_LOOPBACK_CALLBACK = re.compile(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[1-9][0-9]{0,4})?/callback", re.ASCII)

ATTEMPTS_MAX = 5
ATTEMPTS_WITHIN_SECONDS = 60.0
_NAMES_MAX = 1000


@dataclass(frozen=True, slots=True)
class User:
    name: str
    scopes: frozenset[str]


USERS: Mapping[str, User] = {
    user.name: user for user in (User("ada", _USERS), User("grace", _USERS), User("admin", _USERS | {"admin"}))
}


@dataclass(frozen=True, slots=True)
class Client(ClientMixin):
    """An OAuth client as Authlib asks it; without a secret it is public, and its users come back by PKCE alone."""

    client_id: str
    secret: str | None
    scopes: frozenset[str]
    grants: frozenset[str]

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        return None

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """Of what is asked, what this client may have; asked for nothing, orders. None if that leaves nothing."""
        asked = scope.split() if scope else sorted(_ORDERS)
        return " ".join(name for name in asked if name in self.scopes) or None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return self.secret is None and _LOOPBACK_CALLBACK.fullmatch(redirect_uri) is not None

    def check_client_secret(self, client_secret: str) -> bool:
        return self.secret is not None and compare_digest(self.secret.encode(), client_secret.encode())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return (method == "none") is (self.secret is None)

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and self.check_grant_type("authorization_code")

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.grants


CLIENTS: Mapping[str, Client] = {
    client.client_id: client
    for client in (
        Client(
            client_id=PUBLIC_CLIENT,
            secret=None,
            scopes=_USERS | {"admin"},
            grants=frozenset({"authorization_code", "refresh_token"}),
        ),
        Client(
            client_id="payorder-service",
            secret=SERVICE_SECRET,
            scopes=_USERS | {"act:any-owner"},
            grants=frozenset({"client_credentials"}),
        ),
    )
}


class TooManyAttempts(Exception):
    """The name was given with wrong passwords too often; whether it is a user's is not said."""


@dataclass(slots=True)
class Door:
    """Lets users in by their password, and counts what goes wrong by the name that was given."""

    _failures: dict[str, list[float]] = field(default_factory=dict)

    def log_in(self, name: str, password: str) -> User | None:
        """None: there is no such user, or it is another password. Raises TooManyAttempts."""
        since = time.monotonic() - ATTEMPTS_WITHIN_SECONDS
        failures = [at for at in self._failures.pop(name, []) if at > since]
        try:
            if len(failures) >= ATTEMPTS_MAX:
                raise TooManyAttempts
            user = USERS.get(name)
            if compare_digest(password.encode(errors="replace"), PASSWORD.encode()) and user is not None:
                failures.clear()
                return user
            failures.append(time.monotonic())
            return None
        finally:
            self._keep(name, failures)

    def _keep(self, name: str, failures: list[float]) -> None:
        if failures:
            self._failures[name] = failures
        if len(self._failures) > _NAMES_MAX:
            del self._failures[next(iter(self._failures))]
