"""Protobuf to webhook endpoints and deliveries, and back."""

from collections.abc import Iterable

from payments.v1.order_service_pb2 import RequestCallbackRequest
from payments.v1.webhook_pb2 import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from payments.v1.webhook_service_pb2 import (
    CreateWebhookEndpointRequest,
    ListDeliveriesRequest,
    RotateSecretRequest,
    UpdateWebhookEndpointRequest,
)
from payorder.domain.idempotency import IdempotencyKey
from payorder.domain.origin import Origin
from payorder.domain.secret import Secret
from payorder.domain.webhook import Attempt, DeliveryState, Endpoint, EndpointChange, EndpointState
from payorder.edge.caller import current_origin, owner_heard_of
from payorder.edge.page_tokens import from_token
from payorder.edge.translate import PAGE_SIZE_DEFAULT, to_id, to_money, to_time, to_timestamp
from payorder.ports.endpoints import Delivered, DeliveryFilter
from payorder.ports.store import PageRequest
from payorder.workflows.manage_webhooks import CreateEndpointCommand
from payorder.workflows.request_callback import RequestCallbackCommand

_ALL = "*"
_OVERLAP_SECONDS_DEFAULT = 24 * 60 * 60


def to_create_command(request: CreateWebhookEndpointRequest) -> CreateEndpointCommand:
    """Raises ScopeMissing where orders of others are named."""
    return CreateEndpointCommand(
        owner=owner_heard_of(request),
        origin=current_origin(),
        url=request.url,
        description=request.description or None,
        event_types=_to_types(request.event_types),
    )


def to_endpoint_change(request: UpdateWebhookEndpointRequest) -> EndpointChange:
    return EndpointChange(
        url=request.url if request.HasField("url") else None,
        description=request.description if request.HasField("description") else None,
        event_types=_to_types(request.event_types) if request.event_types else None,
        state=EndpointState(request.status) if request.HasField("status") else None,
    )


def to_overlap_seconds(request: RotateSecretRequest) -> int:
    return request.overlap_seconds if request.HasField("overlap_seconds") else _OVERLAP_SECONDS_DEFAULT


def to_delivery_filter(request: ListDeliveriesRequest) -> DeliveryFilter:
    state = DeliveryState(request.status) if request.HasField("status") else None
    return DeliveryFilter(to_id(request.endpoint_id), state)


def to_filtered_page(request: ListDeliveriesRequest, wanted: DeliveryFilter) -> PageRequest:
    """Raises InvalidFields for a token of another filter."""
    size = request.page_size if request.HasField("page_size") else PAGE_SIZE_DEFAULT
    return PageRequest(size=size, after=from_token(request.page_token, wanted))


def to_callback_command(
    request: RequestCallbackRequest, origin: Origin, key: IdempotencyKey | None
) -> RequestCallbackCommand:
    """Raises InvalidFields. The time is only looked at, because it is the caller's own."""
    to_time("timestamp", request.timestamp)
    return RequestCallbackCommand(
        order_id=to_id(request.order_id),
        origin=origin,
        amount=to_money("amount", request.amount, request.currency),
        url=request.callback_url,
        key=key,
    )


def to_endpoint_message(endpoint: Endpoint, secret: Secret | None = None) -> WebhookEndpoint:
    """`secret` is given once, when it is made."""
    until = endpoint.previous_secret_until
    return WebhookEndpoint(
        id=endpoint.id,
        user_id=endpoint.owner,
        url=endpoint.url,
        description=endpoint.description,
        event_types=sorted(endpoint.event_types) or [_ALL],
        status=endpoint.state,
        disabled_because=endpoint.disabled_because,
        order_id=endpoint.order_id,
        secret=secret.reveal() if secret else None,
        previous_secret_until=to_timestamp(until) if until else None,
        created_at=to_timestamp(endpoint.created_at),
        updated_at=to_timestamp(endpoint.updated_at),
    )


def to_overseen_message(endpoint: Endpoint) -> WebhookEndpoint:
    """With what administrators alone are told."""
    since = endpoint.failing_since
    told = WebhookEndpoint(created_by=endpoint.created_by, failing_since=to_timestamp(since) if since else None)
    told.MergeFrom(to_endpoint_message(endpoint))
    return told


def to_delivery_message(delivered: Delivered) -> WebhookDelivery:
    delivery = delivered.delivery
    return WebhookDelivery(
        id=delivery.id,
        endpoint_id=delivery.endpoint_id,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        order_id=delivery.order_id,
        status=delivery.state,
        attempts=map(_to_attempt_message, delivered.attempts),
        next_attempt_at=to_timestamp(delivery.next_attempt_at) if delivery.next_attempt_at else None,
        created_at=to_timestamp(delivery.created_at),
    )


def _to_attempt_message(attempt: Attempt) -> WebhookAttempt:
    return WebhookAttempt(
        number=attempt.number,
        at=to_timestamp(attempt.at),
        delivered=attempt.delivered,
        status_class=None if attempt.status_class is None else f"{attempt.status_class}xx",
    )


def _to_types(names: Iterable[str]) -> frozenset[str]:
    """Empty for all."""
    types = frozenset(names)
    return frozenset() if _ALL in types else types
