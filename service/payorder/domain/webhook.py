"""Webhooks: where events are sent, and what becomes of each of them on its way."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from payorder.domain.errors import ScopeMissing, WebhookDisabled
from payorder.domain.origin import ACT_FOR_ANY_OWNER, Origin

# The public type of every event, by the type under which it is stored.
EVENT_TYPES: Mapping[str, str] = {
    "order.approved": "order.statusChanged",
    "order.shipped": "order.statusChanged",
    "order.delivered": "order.statusChanged",
    "order.cancelled": "order.statusChanged",
    "payment.succeeded": "payment.succeeded",
    "payment.failed": "payment.failed",
    "payment.cancelled": "payment.cancelled",
    "refund.succeeded": "refund.succeeded",
    "refund.failed": "refund.failed",
}
# Events about endpoints themselves, which are of no order.
TEST_EVENT = "webhook.test"
DISABLED_EVENT = "webhook.disabled"


class EndpointState(StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"


class DisabledBecause(StrEnum):
    """`GONE`: the receiver answered 410. `FAILING`: every attempt failed for days. `DONE`: a callback was made.

    `SUBJECT`: who created it has been shut out. `ADMINISTRATOR`: only an administrator undoes it.
    """

    OWNER = "owner"
    SUBJECT = "subject"
    GONE = "gone"
    FAILING = "failing"
    DONE = "done"
    ADMINISTRATOR = "administrator"


class DeliveryState(StrEnum):
    """`DEAD`: it is not attempted any more, unless it is replayed."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """What is None stays as it is; an empty description removes it."""

    url: str | None = None
    description: str | None = None
    event_types: frozenset[str] | None = None
    state: EndpointState | None = None

    @property
    def only_disables(self) -> bool:
        return self == EndpointChange(state=EndpointState.DISABLED)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`owner` is whose orders it hears of, None for everybody's; no `event_types` means all.

    `order_id` is set for a callback: it hears of that order, once, and is signed with the service's own key.
    `failing_since`: every attempt since then has failed. `url_by_service`: who gave the URL could act for any owner, so
    that it may lead to where payers have no business.
    """

    id: str
    created_by: str
    owner: str | None
    url: str
    description: str | None
    event_types: frozenset[str]
    state: EndpointState
    created_at: datetime
    updated_at: datetime
    disabled_because: DisabledBecause | None = None
    order_id: str | None = None
    previous_secret_until: datetime | None = None
    failing_since: datetime | None = None
    url_by_service: bool = False

    def refuse_unless_theirs(self, origin: Origin) -> None:
        """What is sent of others' orders, and where, is for those alone who may act for any owner. Raises ScopeMissing.

        Who may not any more can still stop it.
        """
        if self.owner != origin.actor and not origin.acts_for_any_owner:
            raise ScopeMissing(ACT_FOR_ANY_OWNER)

    def changed(self, change: EndpointChange, at: datetime, origin: Origin) -> "Endpoint":
        """Who disables it is its owner, unless it is disabled for another reason already.

        Raises WebhookDisabled where it may not be enabled.
        """
        state, url = change.state or self.state, change.url or self.url
        if state is EndpointState.ENABLED and self.disabled_because is DisabledBecause.ADMINISTRATOR:
            raise WebhookDisabled
        because = None if state is EndpointState.ENABLED else self.disabled_because or DisabledBecause.OWNER
        return replace(
            self,
            url=url,
            url_by_service=self.url_by_service if change.url is None else origin.acts_for_any_owner,
            description=self.description if change.description is None else change.description or None,
            event_types=self.event_types if change.event_types is None else change.event_types,
            state=state,
            disabled_because=because,
            # What is enabled again has not failed yet, and neither has another receiver.
            failing_since=self.failing_since if (state, url) == (self.state, self.url) else None,
            updated_at=at,
        )

    def disabled_by_administrator(self, at: datetime) -> "Endpoint":
        """Also when it is disabled already, for a reason that its owner could undo, or is a callback that was made."""
        if self.disabled_because is DisabledBecause.ADMINISTRATOR:
            return self
        because = DisabledBecause.ADMINISTRATOR
        return replace(self, state=EndpointState.DISABLED, disabled_because=because, updated_at=at)

    def enabled_by_administrator(self, at: datetime, *, is_done: bool) -> "Endpoint":
        """Whatever it was disabled for. `is_done`: a callback that was made, of which no other is to be made."""
        because = DisabledBecause.DONE if is_done else None
        if because is self.disabled_because:
            return self
        state = EndpointState.DISABLED if is_done else EndpointState.ENABLED
        return replace(self, state=state, disabled_because=because, failing_since=None, updated_at=at)


@dataclass(frozen=True, slots=True)
class Attempt:
    """`status_class` is 2 for 2xx and so on, None when no answer was had."""

    number: int
    at: datetime
    delivered: bool
    status_class: int | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint. `next_attempt_at` is None unless it is pending."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: str
    order_id: str | None
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A delivery in the hands of whoever attempts it now: the `number`-th time, with all secrets that sign it, sealed.

    A callback has none: it is signed with the service's own key. `is_failing`: so far its endpoint has not wanted it.
    `caller` has created the endpoint; `lane` is where it has waited; `claim` tells who has it now from who had it.
    `url_by_service` is the endpoint's.
    """

    delivery_id: str
    endpoint_id: str
    caller: str
    lane: str
    claim: int
    number: int
    url: str
    event_id: str
    body: bytes
    sealed_secrets: tuple[bytes, ...]
    is_failing: bool = False
    url_by_service: bool = False

    @property
    def is_callback(self) -> bool:
        return not self.sealed_secrets
