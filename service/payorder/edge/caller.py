"""The caller of the RPC that is running."""

from contextvars import ContextVar

from payorder.ports.tokens import Caller

_current: ContextVar[Caller] = ContextVar("caller")


def set_current_caller(caller: Caller) -> None:
    """Called once per RPC; each runs in a context of its own."""
    _current.set(caller)


def current_caller() -> Caller:
    return _current.get()
