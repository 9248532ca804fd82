"""The caller of the RPC that is running, and the RPC's id."""

import time
from contextvars import ContextVar

from payments.v1.order_service_pb2 import CreateOrderRequest, ListOrdersRequest
from payments.v1.webhook_service_pb2 import CreateWebhookEndpointRequest
from payorder.domain.errors import ScopeMissing
from payorder.domain.origin import ACT_FOR_ANY_OWNER, Origin
from payorder.ports.tokens import Caller

_caller: ContextVar[Caller] = ContextVar("caller")
_request_id: ContextVar[str] = ContextVar("request_id")


def set_current_caller(caller: Caller, request_id: str) -> None:
    """Called once per RPC; each runs in a context of its own."""
    _caller.set(caller)
    _request_id.set(request_id)


def current_subject() -> str:
    return _caller.get().subject


def current_origin() -> Origin:
    caller = _caller.get()
    return Origin(caller.subject, _request_id.get(), acts_for_any_owner=ACT_FOR_ANY_OWNER in caller.scopes)


def token_seconds_left() -> float:
    return _caller.get().expires_at - time.time()


def owner_named_in(request: CreateOrderRequest | ListOrdersRequest) -> str:
    """The caller, if the request names no other. Raises ScopeMissing where none may be named."""
    origin = current_origin()
    if not request.HasField("user_id"):
        return origin.actor
    if not origin.acts_for_any_owner:
        raise ScopeMissing(ACT_FOR_ANY_OWNER)
    return request.user_id


def owner_heard_of(request: CreateWebhookEndpointRequest) -> str | None:
    """The caller, or whom the request names, None for everybody. Raises ScopeMissing where none may be named."""
    origin = current_origin()
    if not request.HasField("user_id") and not request.all_users:
        return origin.actor
    if not origin.acts_for_any_owner:
        raise ScopeMissing(ACT_FOR_ANY_OWNER)
    return None if request.all_users else request.user_id
