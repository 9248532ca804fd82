"""An OAuth client as its developer would write it, and the browser that its user has, without a browser."""

import base64
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from secrets import token_urlsafe
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp

CLIENT = "payorder-development"
SERVICE = aiohttp.encode_basic_auth("payorder-service", "payorder-service-development")
PASSWORD = "development"
REDIRECT_URI = "http://127.0.0.1:4711/callback"
SCOPE = "read:orders write:orders"


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer that a browser gets: `back` is what a redirect tells the client, None without one."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def back(self) -> dict[str, str] | None:
        location = self.headers.get("Location")
        return dict(parse_qsl(urlsplit(location).query)) if location else None

    @property
    def form(self) -> tuple[str, dict[str, str]]:
        """Where the page's form goes, and its hidden fields."""
        parser = _Form()
        parser.feed(self.text)
        return parser.action, parser.hidden


class _Form(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.hidden: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = given["action"]
        elif tag == "input" and given.get("type") == "hidden":
            self.hidden[given["name"]] = given["value"]


class OAuthClient:
    """One login's worth of a public client: its verifier and its state, and its user's cookies."""

    def __init__(self, session: aiohttp.ClientSession, issuer_url: str) -> None:
        self._session = session
        self.issuer_url = issuer_url
        self.verifier = token_urlsafe(48)
        self.state = token_urlsafe()

    @property
    def challenge(self) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")

    def asked(self, **changes: Any) -> dict[str, str]:
        """The parameters of a good authorization request; `...` takes one away."""
        good = {
            "response_type": "code",
            "client_id": CLIENT,
            "redirect_uri": REDIRECT_URI,
            "scope": SCOPE,
            "state": self.state,
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in (good | changes).items() if value is not ...}

    async def open(self, **changes: Any) -> Shown:
        return await self.get("/authorize", self.asked(**changes))

    async def get(self, path: str, query: Any = None) -> Shown:
        async with self._session.get(self.issuer_url + path, params=query, allow_redirects=False) as response:
            return Shown(response.status, await response.text(), response.headers)

    async def send(self, page: Shown, headers: Mapping[str, str] | None = None, **fields: Any) -> Shown:
        """The form of a login page; `fields` come on top of the hidden ones."""
        action, hidden = page.form
        form = {name: value for name, value in (hidden | {"choice": "allow"} | fields).items() if value is not ...}
        url = self.issuer_url + action
        async with self._session.post(url, data=form, headers=headers, allow_redirects=False) as response:
            return Shown(response.status, await response.text(), response.headers)

    async def sign_in(self, username: str = "ada", password: str = PASSWORD, **changes: Any) -> Shown:
        return await self.send(await self.open(**changes), username=username, password=password)

    async def code(self, username: str = "ada", **changes: Any) -> str:
        back = (await self.sign_in(username, **changes)).back
        assert back is not None
        assert (self.state, self.issuer_url) == (back["state"], back["iss"])
        return back["code"]

    async def exchange(self, code: str, **changes: Any) -> tuple[int, dict[str, Any]]:
        good = {
            "grant_type": "authorization_code",
            "client_id": CLIENT,
            "redirect_uri": REDIRECT_URI,
            "code": code,
            "code_verifier": self.verifier,
        }
        return await self.post("/token", good | changes)

    async def refresh(self, refresh_token: str, path: str = "/refresh", **changes: Any) -> tuple[int, dict[str, Any]]:
        good = {"grant_type": "refresh_token", "client_id": CLIENT, "refresh_token": refresh_token}
        return await self.post(path, good | changes)

    async def post(self, path: str, form: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        """A form; fields that are `...` are left out."""
        if isinstance(form, dict):
            form = {name: value for name, value in form.items() if value is not ...}
        async with self._session.post(self.issuer_url + path, data=form, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def create_token(self, body: Any, content_type: str = "application/json") -> tuple[Shown, dict[str, Any]]:
        """POST /auth/tokens with `body` as bytes or as JSON values."""
        given: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        headers = {"Content-Type": content_type}
        async with self._session.post(f"{self.issuer_url}/auth/tokens", headers=headers, **given) as response:
            return Shown(response.status, await response.text(), response.headers), await response.json(
                content_type=None
            )


@asynccontextmanager
async def oauth_client(issuer_url: str) -> AsyncIterator[OAuthClient]:
    # Of an address without a name aiohttp keeps cookies only when it is told to.
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield OAuthClient(session, issuer_url)
