"""How a connection to PostgreSQL is opened, whichever pool it is for."""

from typing import Any

from sqlalchemy.engine import URL

CONNECT_TIMEOUT_SECONDS = 3.0
_STATEMENT_TIMEOUT_SECONDS = 5.0
# The server gives up first; this is for a server that is no longer heard of.
_COMMAND_TIMEOUT_SECONDS = _STATEMENT_TIMEOUT_SECONDS + 1
_SETTINGS = {
    "statement_timeout": f"{_STATEMENT_TIMEOUT_SECONDS:.0f}s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
}


def connect_arguments(url: URL) -> dict[str, Any]:
    """For asyncpg.connect, which reads the options of the URL itself, sslmode and other libpq names among them."""
    return {
        "dsn": url.set(drivername="postgresql").render_as_string(hide_password=False),
        "timeout": CONNECT_TIMEOUT_SECONDS,
        "command_timeout": _COMMAND_TIMEOUT_SECONDS,
        "server_settings": _SETTINGS,
    }
