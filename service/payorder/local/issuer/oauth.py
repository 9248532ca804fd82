"""The OAuth of the development issuer: Authlib, told what we refuse and where things are kept.

Authorization code with PKCE, refresh tokens that rotate, and client credentials. Sources: RFC 6749, 7636, 9068, 9207,
and 9700 for what is left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from aiohttp import web
from authlib.common.security import generate_token
from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc6749 import (
    AuthorizationServer,
    InvalidRequestError,
    InvalidScopeError,
    OAuth2Error,
    OAuth2Payload,
    OAuth2Request,
    UnsupportedResponseTypeError,
    grants,
)
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from multidict import MultiDict, MultiMapping

from payorder.local.issuer import Issuer
from payorder.local.issuer.accounts import CLIENTS, SCOPES, Client, User
from payorder.local.issuer.logins import Code, Login, RefreshToken, Secrets

_SECRET_LENGTH = 48


@dataclass(frozen=True, slots=True)
class Lifetimes:
    access_token_seconds: int
    code_seconds: float
    login_seconds: float


SHORT = Lifetimes(access_token_seconds=10 * 60, code_seconds=60, login_seconds=12 * 60 * 60)


class Asked(OAuth2Request):
    """A request as Authlib reads it: its parameters are those of the query or those of a form, never both."""

    def __init__(self, request: web.Request, parameters: MultiMapping[str]) -> None:
        super().__init__(request.method, str(request.url), headers=request.headers)
        self.payload = _Parameters(parameters)

    @property
    def form(self) -> Mapping[str, str]:
        data: Mapping[str, str] = self.payload.data
        return data


async def form_of(request: web.Request) -> MultiDict[str]:
    """The texts of a form. One that cannot be read has none."""
    try:
        form = await request.post()
    except (ValueError, LookupError):
        return MultiDict()
    return MultiDict((name, value) for name, value in form.items() if isinstance(value, str))


class _Parameters(OAuth2Payload):
    def __init__(self, parameters: MultiMapping[str]) -> None:
        self._lists = {name: parameters.getall(name) for name in parameters}

    @property
    def data(self) -> dict[str, str]:
        return {name: values[0] for name, values in self._lists.items()}

    @property
    def datalist(self) -> dict[str, list[str]]:
        return self._lists


class OAuth(AuthorizationServer):
    """`issuer` answers with the one that signs at that moment, because its key may have changed."""

    def __init__(self, issuer: Callable[[], Issuer], lifetimes: Lifetimes) -> None:
        super().__init__(scopes_supported=list(SCOPES))
        self.issuer = issuer
        self.lifetimes = lifetimes
        self.codes: Secrets[Code] = Secrets()
        self.refresh_tokens: Secrets[RefreshToken] = Secrets()
        self.register_grant(_AuthorizationCode, [_ProofKey(required=True)])
        self.register_grant(_Refresh)
        self.register_grant(_ClientCredentials)
        self.register_token_generator(
            "default",
            BearerTokenGenerator(
                self._access_token,
                refresh_token_generator=lambda **_: generate_token(_SECRET_LENGTH),
                # Authlib's own would be ten days.
                expires_generator=lambda _client, _grant: lifetimes.access_token_seconds,
            ),
        )

    def get_authorization_grant(self, request: Asked) -> grants.AuthorizationCodeGrant:
        try:
            return super().get_authorization_grant(request)
        except UnsupportedResponseTypeError as error:
            error.description = "The response_type must be code."  # Authlib would repeat what was asked.
            raise

    def query_client(self, client_id: str) -> Client | None:
        return CLIENTS.get(client_id)

    def save_token(self, token: Mapping[str, Any], request: OAuth2Request) -> None:
        """A refresh token is kept for the login that the code, or the one before it, stands for."""
        if "refresh_token" in token:
            login = (request.refresh_token or request.authorization_code).login
            self.refresh_tokens.keep(token["refresh_token"], RefreshToken(login, login.expires_at))

    def create_oauth2_request(self, request: Asked) -> Asked:
        return request

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Nobody listens."""

    def refused(self, error: OAuth2Error) -> web.Response:
        return self.handle_response(*error())

    def handle_response(self, status: int, body: object, headers: list[tuple[str, str]]) -> web.Response:
        answered = dict(headers)
        if location := answered.get("Location"):
            # RFC 9700 4.12: what was posted is not posted on. RFC 9207: who answers says its name.
            answered["Location"] = add_params_to_uri(location, [("iss", self.issuer().name)])
            return web.Response(status=303, headers=answered)
        answered.pop("Content-Type")
        return web.json_response(body, status=status, headers=answered)

    def _access_token(self, *, client: Client, grant_type: str, user: User | None, scope: str) -> str:
        return self.issuer().token(
            subject=user.name if user else client.client_id,
            scope=scope,
            client=client.client_id,
            seconds=self.lifetimes.access_token_seconds,
        )


class _ProofKey(CodeChallenge):
    """PKCE for everybody, by S256 alone, and asked for before anybody logs in."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ["S256"]  # noqa: RUF012 - a list in Authlib too

    def validate_code_challenge(self, grant: "_AuthorizationCode", redirect_uri: str) -> None:
        given = grant.request.payload.data
        if not given.get("code_challenge") or given.get("code_challenge_method") != "S256":
            raise InvalidRequestError("A code_challenge with the code_challenge_method S256 is required.")
        super().validate_code_challenge(grant, redirect_uri)


class _AuthorizationCode(grants.AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["none"]  # noqa: RUF012 - a list in Authlib too

    @staticmethod
    def validate_authorization_redirect_uri(request: OAuth2Request, client: Client) -> str:
        asked = request.payload.redirect_uri
        if not asked or not client.check_redirect_uri(asked):
            raise InvalidRequestError("The redirect_uri is none that is registered for this client.")
        return str(asked)

    def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
        """The user grants what the client asks and the user has."""
        granted = [name for name in request.scope.split() if name in request.user.scopes]
        if not granted:
            raise InvalidScopeError(redirect_uri=request.payload.redirect_uri)
        lifetimes, now = self.server.lifetimes, monotonic()
        login = Login(request.user, request.client.client_id, " ".join(granted), now + lifetimes.login_seconds)
        kept = Code(
            login,
            now + lifetimes.code_seconds,
            redirect_uri=request.payload.redirect_uri,
            code_challenge=request.payload.data["code_challenge"],
        )
        self.server.codes.keep(code, kept)

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        found: Code | None = self.server.codes.find(code, client)
        return found

    def delete_authorization_code(self, authorization_code: Code) -> None:
        authorization_code.was_used = True

    def authenticate_user(self, authorization_code: Code) -> User:
        return authorization_code.login.user


class _Refresh(grants.RefreshTokenGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["none"]  # noqa: RUF012 - a list in Authlib too
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> RefreshToken | None:
        found: RefreshToken | None = self.server.refresh_tokens.find(refresh_token, self.request.client)
        return found

    def authenticate_user(self, refresh_token: RefreshToken) -> User:
        return refresh_token.login.user

    def revoke_old_credential(self, refresh_token: RefreshToken) -> None:
        refresh_token.was_used = True


class _ClientCredentials(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]  # noqa: RUF012 - a list in Authlib too
