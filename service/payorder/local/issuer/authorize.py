"""/authorize: the login page of a good request, and its form, which leads back to the client (RFC 6749 4.1)."""

from collections.abc import Mapping
from secrets import token_urlsafe
from urllib.parse import urlencode

from aiohttp import web
from authlib.oauth2.rfc6749 import OAuth2Error
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant

from payorder.local.issuer import pages
from payorder.local.issuer.accounts import SCOPES, Door, TooManyAttempts, User
from payorder.local.issuer.oauth import Asked, OAuth, form_of
from payorder.local.issuer.pages import LoginPage

PATH = "/authorize"
_COOKIE = "payorder_login"


class Authorize:
    """What was asked stays in the query until the form comes back: nothing is kept before somebody has logged in."""

    def __init__(self, oauth: OAuth, door: Door) -> None:
        self._oauth = oauth
        self._door = door

    async def show(self, request: web.Request) -> web.Response:
        grant = self._validated(request)
        if isinstance(grant, web.Response):
            return grant
        # The one it has, so that the pages of two windows can both be sent.
        token = request.cookies.get(_COOKIE) or token_urlsafe()
        response = _page(grant, token).shown()
        response.set_cookie(_COOKIE, token, path=PATH, httponly=True, samesite="Strict")
        return response

    async def receive(self, request: web.Request) -> web.Response:
        grant = self._validated(request)
        if isinstance(grant, web.Response):
            return grant
        form = await form_of(request)
        if not _is_from_our_page(request, form):
            return pages.notice("This form is not ours", "Go back to your application and begin again.", status=403)
        if form.get("choice") == "deny":
            return self._back(grant, None)
        return self._log_in(grant, form)

    def _validated(self, request: web.Request) -> AuthorizationCodeGrant | web.Response:
        """A request that a code may be given for, or how it is refused."""
        try:
            grant: AuthorizationCodeGrant = self._oauth.get_consent_grant(Asked(request, request.query))
        except OAuth2Error as error:
            if error.redirect_uri:
                return self._oauth.refused(error)
            return _refused(error.description)
        except ValueError:  # Authlib cannot write what was asked into an error.
            return _refused("")
        return grant

    def _log_in(self, grant: AuthorizationCodeGrant, form: Mapping[str, str]) -> web.Response:
        page, name = _page(grant, form["token"]), form.get("username", "")
        try:
            user = self._door.log_in(name, form.get("password", ""))
        except TooManyAttempts:
            return page.shown(status=429, name=name, said="Too many wrong passwords. Wait a minute.")
        if user is None:
            return page.shown(status=403, name=name, said="There is no user of this name with this password.")
        return self._back(grant, user)

    def _back(self, grant: AuthorizationCodeGrant, user: User | None) -> web.Response:
        """To the client: with a code, or, without a user, with access_denied."""
        response: web.Response = self._oauth.create_authorization_response(grant.request, user, grant)
        return response


def _page(grant: AuthorizationCodeGrant, token: str) -> LoginPage:
    asked = grant.request
    return LoginPage(
        action=f"{PATH}?{urlencode(asked.payload.data)}",
        token=token,
        client=asked.client.client_id,
        scopes=[SCOPES[name] for name in asked.scope.split()],
        redirect_uri=asked.payload.redirect_uri,
    )


def _refused(why: str) -> web.Response:
    return pages.notice("This cannot be authorized", why or "The request is not well formed.", status=400)


def _is_from_our_page(request: web.Request, form: Mapping[str, str]) -> bool:
    """No other site can send it: it would not know the cookie, and browsers say where a form comes from."""
    token = request.cookies.get(_COOKIE, "")
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin" or not token:
        return False
    return form.get("token") == token
