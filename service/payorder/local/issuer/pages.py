"""What a person sees of the development issuer: templates in which every value is escaped, and no script."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from types import MappingProxyType
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from payorder.local.issuer.signing import PUBLIC_CLIENT

# The example of RFC 7636, appendix B: a client makes its own for each login.
_CODE_VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
_CODE_CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class LoginPage:
    """`action`: where the form goes; `token`: what it must bring along; `scopes`: what is asked for, in words."""

    action: str
    token: str
    client: str
    scopes: list[str]
    redirect_uri: str

    def shown(self, *, status: int = 200, name: str = "", said: str = "") -> web.Response:
        """`said` is what went wrong with `name`."""
        values = {"action": self.action, "token": self.token, "client": self.client, "name": name}
        fragments = {
            "scopes": "".join(f"<li>{escape(scope)}</li>" for scope in self.scopes),
            "alert": f'<p class="alert" role="alert">{escape(said)}</p>' if said else "",
        }
        # A browser follows no redirect after a form to where the form itself could not be sent.
        body = _filled("login.html", values, fragments)
        return _page("Sign in", body, status, form_action=f"'self' {_origin(self.redirect_uri)}")


def about(url: str) -> web.Response:
    asked = {
        "response_type": "code",
        "client_id": PUBLIC_CLIENT,
        "redirect_uri": f"{url}/callback",
        "scope": "read:orders write:orders",
        "code_challenge": _CODE_CHALLENGE,
        "code_challenge_method": "S256",
    }
    return _page("Tokens for development", _filled("about.html", {"authorize": f"/authorize?{urlencode(asked)}"}))


def callback(url: str, code: str | None) -> web.Response:
    """What a client would do next, to be pasted."""
    # Nothing but a code may get into a command that is there to be pasted.
    if code is None or not (code.isascii() and code.isalnum()):
        return notice("There is no code", "The issuer gave none: nobody signed in, or what was asked cannot be given.")
    values = {"url": url, "client": PUBLIC_CLIENT, "code": code, "verifier": _CODE_VERIFIER}
    return _page("Back at the client", _filled("callback.html", values))


def notice(title: str, text: str, *, status: int = 200) -> web.Response:
    return _page(title, _filled("notice.html", {"text": text}), status)


def style() -> web.Response:
    return web.Response(text=(_TEMPLATES / "style.css").read_text(encoding="utf-8"), content_type="text/css")


def _page(title: str, body: str, status: int = 200, *, form_action: str = "'none'") -> web.Response:
    policy = f"default-src 'none'; style-src 'self'; form-action {form_action}; frame-ancestors 'none'; base-uri 'none'"
    return web.Response(
        text=_filled("layout.html", {"title": title}, {"body": body}),
        status=status,
        content_type="text/html",
        charset="utf-8",
        headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"},
    )


def _filled(file: str, values: Mapping[str, str], fragments: Mapping[str, str] = MappingProxyType({})) -> str:
    """`values` are escaped, `fragments` are HTML."""
    template = Template((_TEMPLATES / file).read_text(encoding="utf-8"))
    return template.substitute({name: escape(value) for name, value in values.items()} | dict(fragments))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    # A policy has no way to write an IPv6 address.
    return "http:" if "[" in parts.netloc else f"{parts.scheme}://{parts.netloc}"
