"""Webhook endpoints and what is delivered to them, in the words of whoever manages them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from payorder.domain.idempotency import IdempotencyKey, Replay, Reply
from payorder.domain.money import Money
from payorder.domain.order import Order
from payorder.domain.origin import Owner
from payorder.domain.webhook import Attempt, Delivery, DeliveryState, Endpoint, EndpointChange, EndpointState
from payorder.ports.audit import CallRecord
from payorder.ports.store import Page, PageRequest


@dataclass(frozen=True, slots=True)
class EndpointFilter:
    """Of everybody's endpoints. What is None does not matter."""

    created_by: str | None = None
    state: EndpointState | None = None


@dataclass(frozen=True, slots=True)
class FoundEndpoints:
    """Endpoints that fit a filter, and after which one to look further, if there may be more."""

    endpoints: Sequence[Endpoint]
    go_on_after: str | None


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Of one endpoint; without a state, all of them."""

    endpoint_id: str
    state: DeliveryState | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """A delivery, and its newest attempts in their order."""

    delivery: Delivery
    attempts: Sequence[Attempt]


@dataclass(frozen=True, slots=True)
class FoundDeliveries:
    """Deliveries that fit a filter, and after which one to look further, if there may be more."""

    deliveries: Sequence[Delivered]
    go_on_after: str | None


@dataclass(frozen=True, slots=True)
class NewSecret:
    """`overlap_seconds`: for how long the one before it signs too, by the database's clock."""

    sealed: bytes
    overlap_seconds: int


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """What is to be sent to an endpoint, as soon as it can be."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: str
    body: bytes
    at: datetime
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewCallback:
    """What was asked for: `amount` must be the order's, which must be one of `owner`.

    `if_ended` makes the delivery about an order that has ended, and None of one that has not.
    """

    endpoint: Endpoint
    order_id: str
    amount: Money
    owner: Owner
    reply: Reply
    key: IdempotencyKey | None
    if_ended: Callable[[Order], NewDelivery | None]


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """Of the events of an endpoint since a time, those that come after `after`."""

    endpoint_id: str
    since: datetime
    after: str | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many events are sent again, and after what to go on, if there may be more."""

    count: int
    go_on_after: str | None


class Endpoints(Protocol):
    """Endpoints of those who manage them. Every method is one short transaction, retried inside as those of Store.

    Whoever did not create an endpoint does not find it: WebhookNotFound, as for none. What changes something is written
    into the audit log with it, as its CallRecord says, whose actor is the one who must have created it. Raises Busy,
    and CommitUnknown from what changes something.
    """

    async def add(self, endpoint: Endpoint, sealed_secret: bytes, call: CallRecord, *, at_most: int) -> None:
        """Raises WebhookLimitReached when there are `at_most` already."""
        ...

    async def list_endpoints(self, created_by: str, page: PageRequest) -> Page[Endpoint]:
        """Without callbacks."""
        ...

    async def list_callbacks(self, created_by: str, order_id: str) -> list[Endpoint]: ...

    async def get_endpoint(self, endpoint_id: str, created_by: str) -> Endpoint: ...

    async def update(self, endpoint_id: str, change: EndpointChange, at: datetime, call: CallRecord) -> Endpoint:
        """Raises WebhookDisabled."""
        ...

    async def delete(self, endpoint_id: str, call: CallRecord) -> None:
        """With its deliveries, in as many transactions as it takes. One that was cut off is asked for again."""
        ...

    async def rotate(self, endpoint_id: str, secret: NewSecret, at: datetime, call: CallRecord) -> Endpoint: ...

    async def find_callback_reply(self, caller: str, key: IdempotencyKey, at: datetime) -> Replay | None:
        """What this key of theirs was answered before. Raises IdempotencyKeyReused."""
        ...

    async def add_callback(self, callback: NewCallback, call: CallRecord, *, at_most: int) -> Replay | None:
        """Raises OrderNotFound, CurrencyMismatch, AmountMismatch, IdempotencyKeyReused, and WebhookLimitReached when
        the order has `at_most` callbacks already."""
        ...

    async def add_test(self, delivery: NewDelivery, call: CallRecord, *, per_minute_max: int) -> Delivered:
        """Raises RateLimited when the endpoint had so many within a minute."""
        ...

    async def find_deliveries(self, wanted: DeliveryFilter, created_by: str, page: PageRequest) -> FoundDeliveries:
        """Looks at so many that it does not take long, and may find none of those that fit."""
        ...

    async def replay_delivery(self, endpoint_id: str, delivery_id: str, call: CallRecord) -> Delivered: ...

    async def replay_since(self, wanted: ReplayRequest, call: CallRecord) -> Replayed:
        """Of a bounded part of the events, also of those that were never to be delivered to the endpoint."""
        ...


class EverybodysEndpoints(Protocol):
    """Endpoints of whoever created them, for administrators: as Endpoints, but the actor need not have created any.

    Only what is not there is WebhookNotFound.
    """

    async def find_endpoints(self, wanted: EndpointFilter, page: PageRequest) -> FoundEndpoints:
        """Without callbacks. Looks at so many that it does not take long, and may find none of those that fit."""
        ...

    async def disable(self, endpoint_id: str, at: datetime, call: CallRecord) -> Endpoint:
        """An endpoint or a callback, as Endpoint.disabled_by_administrator says."""
        ...

    async def enable(self, endpoint_id: str, at: datetime, call: CallRecord) -> Endpoint:
        """An endpoint or a callback, as Endpoint.enabled_by_administrator says."""
        ...
