"""The development issuer's server: the endpoints that the documentation names. It keeps nothing on disk."""

import json
import logging
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from authlib.oauth2.rfc6749 import InvalidClientError, InvalidRequestError, UnsupportedGrantTypeError

from payorder.local.issuer import ALGORITHM, Issuer, authorize, create_token, pages, url_at
from payorder.local.issuer.accounts import SCOPES, Door
from payorder.local.issuer.authorize import Authorize
from payorder.local.issuer.create_token import CreateToken
from payorder.local.issuer.oauth import SHORT, Asked, Lifetimes, OAuth, form_of
from payorder.local.issuer.signing import HOST

BODY_BYTES_MAX = 16 * 1024
KEYS_KEPT_SECONDS = 300
_STOP_TIMEOUT_SECONDS = 1.0
_OUR_HOSTS = frozenset({HOST, "localhost"})


def serve(folder: Path, port: int) -> None:
    """Until SIGTERM or Ctrl-C. Raises OSError if the port is taken."""
    Issuer(folder, url_at(port))
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    web.run_app(
        application(folder),
        host=HOST,
        port=port,
        print=None,
        access_log_class=_AccessLog,
        shutdown_timeout=_STOP_TIMEOUT_SECONDS,
    )


def application(folder: Path, lifetimes: Lifetimes = SHORT) -> web.Application:
    """Serves the issuer of `folder`, whose key is read for each token: `payorder-local rotate` needs to tell nobody."""
    endpoints = _Endpoints(lambda: Issuer(folder), lifetimes)
    served = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_refuse_foreign_hosts])
    served.on_response_prepare.append(_add_headers)
    served.add_routes(endpoints.routes())
    return served


class _Endpoints:
    def __init__(self, issuer: Callable[[], Issuer], lifetimes: Lifetimes) -> None:
        self._issuer = issuer
        self._door = Door()
        self._oauth = OAuth(issuer, lifetimes)

    def routes(self) -> list[web.RouteDef]:
        login = Authorize(self._oauth, self._door)
        return [
            web.get("/", self.about),
            web.get("/callback", self.callback),
            web.get("/style.css", self.style),
            web.get(authorize.PATH, login.show),
            web.post(authorize.PATH, login.receive),
            web.post("/token", self.token),
            web.post("/refresh", self.refresh),
            web.post(create_token.PATH, CreateToken(self._issuer, self._door).answer),
            web.get("/jwks", self.jwks),
            web.get("/.well-known/openid-configuration", self.metadata),
            web.get("/.well-known/oauth-authorization-server", self.metadata),
        ]

    async def about(self, _request: web.Request) -> web.Response:
        return pages.about(self._issuer().name)

    async def callback(self, request: web.Request) -> web.Response:
        """Where the link of the first page leads back to, as to a client."""
        return pages.callback(self._issuer().name, request.query.get("code"))

    async def style(self, _request: web.Request) -> web.Response:
        return pages.style()

    async def token(self, request: web.Request) -> web.Response:
        """RFC 6749 3.2: every grant."""
        form = await form_of(request)
        if len(set(form)) < len(form):
            return self._oauth.refused(InvalidRequestError("A parameter is given twice."))
        try:
            answer: web.Response = self._oauth.create_token_response(Asked(request, form))
        except ValueError:  # Authlib cannot read the client's name and secret.
            return self._oauth.refused(InvalidClientError(status_code=401))
        return answer

    async def refresh(self, request: web.Request) -> web.Response:
        """The documented URL of its own for refresh tokens."""
        if (await form_of(request)).get("grant_type") != "refresh_token":
            return self._oauth.refused(UnsupportedGrantTypeError(None))
        return await self.token(request)

    async def jwks(self, _request: web.Request) -> web.Response:
        return _public(json.loads(self._issuer().jwks_path.read_bytes()), content_type="application/jwk-set+json")

    async def metadata(self, _request: web.Request) -> web.Response:
        """RFC 8414, and what OpenID Connect Discovery wants besides."""
        url = self._issuer().name
        return _public(
            {
                "issuer": url,
                "authorization_endpoint": f"{url}/authorize",
                "token_endpoint": f"{url}/token",
                "jwks_uri": f"{url}/jwks",
                "scopes_supported": list(SCOPES),
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
                "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
            }
        )


def _public(document: dict[str, object], content_type: str = "application/json") -> web.Response:
    headers = {"Cache-Control": f"public, max-age={KEYS_KEPT_SECONDS}"}
    return web.json_response(document, content_type=content_type, headers=headers)


@web.middleware
async def _refuse_foreign_hosts(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A site whose name is made to lead here (DNS rebinding) would read the answers in its visitor's browser."""
    if request.url.host not in _OUR_HOSTS:
        return web.Response(status=421)
    return await handler(request)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"


class _AccessLog(AbstractAccessLogger):
    """Field by field: no query, no body, and a path only if it is one of ours."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        resource = request.match_info.route.resource if isinstance(request, web.Request) else None
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": request.method,
            "path": resource.canonical if resource else None,
            "status": response.status,
            "duration_ms": round(time * 1000, 3),
        }
        self.logger.info(json.dumps(line))
