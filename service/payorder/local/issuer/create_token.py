"""POST /auth/tokens, the documented "Create Authentication Token": a name and a password for a token that lasts a day.

Its problems (RFC 9457) have the members and the words of the service's own.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from payorder.local.issuer import TOKEN_SECONDS, Issuer
from payorder.local.issuer.accounts import ATTEMPTS_WITHIN_SECONDS, Door, TooManyAttempts, User

PATH = "/auth/tokens"
_FIELDS = ("username", "password")
_LENGTH_MAX = 200
_MESSAGES = {
    "required": "is required",
    "too_long": "is too long",
    "unknown_field": "has a name that is not known here",
}

# By HTTP status: reason, title, detail.
_PROBLEMS: Mapping[int, tuple[str, str, str]] = {
    400: ("BAD_REQUEST", "The request cannot be read", "The request is not of the documented form."),
    401: ("UNAUTHENTICATED", "Authentication is required", "There is no user of this name with this password."),
    413: ("REQUEST_TOO_LARGE", "The request is too large", "The body exceeds 16384 bytes."),
    415: ("UNSUPPORTED_MEDIA_TYPE", "The media type is not supported", "Send application/json in UTF-8."),
    422: ("INVALID_FIELDS", "Some fields are not valid", "See errors for each field."),
    429: ("RATE_LIMITED", "Too many requests", "This name was given with wrong passwords; repeat later."),
}
_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": str(int(ATTEMPTS_WITHIN_SECONDS))},
}


class CreateToken:
    """Answers {token, expiresAt}; the token has every scope of its user."""

    def __init__(self, issuer: Callable[[], Issuer], door: Door) -> None:
        self._issuer = issuer
        self._door = door

    async def answer(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return _problem(415)
        try:
            body = json.loads(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return _problem(413)
        except (ValueError, RecursionError):
            return _problem(400)
        if not isinstance(body, dict) or not all(isinstance(body.get(name, ""), str) for name in _FIELDS):
            return _problem(400)
        faults = _faults(body)
        return _problem(422, faults) if faults else self._log_in(body["username"], body["password"])

    def _log_in(self, name: str, password: str) -> web.Response:
        try:
            user = self._door.log_in(name, password)
        except TooManyAttempts:
            return _problem(429)
        return _problem(401) if user is None else self._token(user)

    def _token(self, user: User) -> web.Response:
        # Before the token is made, so that the token never ends before it is said to.
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=TOKEN_SECONDS)
        token = self._issuer().token(subject=user.name, scope=" ".join(sorted(user.scopes)))
        answer = {"token": token, "expiresAt": expires_at.isoformat().replace("+00:00", "Z")}
        return web.json_response(answer, headers={"Cache-Control": "no-store"})


def _faults(body: Mapping[str, Any]) -> list[dict[str, str]]:
    faults = [_fault(name, "required") for name in _FIELDS if not body.get(name)]
    faults += [_fault(name, "too_long") for name in _FIELDS if len(body.get(name, "")) > _LENGTH_MAX]
    # Its name is not repeated.
    return faults + ([_fault("", "unknown_field")] if body.keys() - _FIELDS else [])


def _fault(field: str, code: str) -> dict[str, str]:
    return {"field": field, "message": _MESSAGES[code], "code": code}


def _problem(status: int, faults: list[dict[str, str]] | None = None) -> web.Response:
    reason, title, detail = _PROBLEMS[status]
    problem = {
        "type": "urn:payorder:problem:" + reason.lower().replace("_", "-"),
        "title": title,
        "status": status,
        "detail": detail,
        "instance": PATH,
        "reason": reason,
        "errors": faults or [],
    }
    headers = {"Cache-Control": "no-store", **_HEADERS.get(status, {})}
    return web.json_response(problem, status=status, content_type="application/problem+json", headers=headers)
