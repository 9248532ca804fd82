"""The caller of the RPC that is running, and the RPC's id."""

from contextvars import ContextVar

from payorder.domain.origin import Origin
from payorder.ports.tokens import Caller

_caller: ContextVar[Caller] = ContextVar("caller")
_request_id: ContextVar[str] = ContextVar("request_id")


def set_current_caller(caller: Caller, request_id: str) -> None:
    """Called once per RPC; each runs in a context of its own."""
    _caller.set(caller)
    _request_id.set(request_id)


def current_caller() -> Caller:
    return _caller.get()


def current_origin() -> Origin:
    return Origin(_caller.get().subject, _request_id.get())
