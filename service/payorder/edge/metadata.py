"""The metadata of the RPC that is running, read once: gRPC makes it anew whenever it is asked."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import grpc

_current: ContextVar[Mapping[str, list[str]]] = ContextVar("metadata")


def read_metadata(context: "grpc.aio.ServicerContext[Any, Any]") -> None:
    """Called once per RPC; each runs in a context of its own."""
    values: dict[str, list[str]] = {}
    for name, value in context.invocation_metadata() or ():
        values.setdefault(name, []).append(str(value))
    _current.set(values)


def metadata_values(name: str) -> list[str]:
    """Every value under that name, in lower case; mostly there is none or one."""
    return _current.get().get(name, [])
