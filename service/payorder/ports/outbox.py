"""Events on their way out: each is written with the change that it tells of, and is then fanned out and delivered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from payorder.domain.event import Event
from payorder.domain.webhook import DeliveryState, DisabledBecause, Dispatch


class EventBodies(Protocol):
    """What receivers get to read, in the public contract's words: UTF-8 JSON."""

    def event(self, event: Event) -> bytes: ...

    def callback(self, endpoint_id: str, event: Event) -> bytes:
        """Only for events that end a callback's wait."""
        ...

    def disabled(self, event_id: str, endpoint: "DisabledEndpoint", at: datetime) -> bytes:
        """For who has created the endpoint."""
        ...


@dataclass(frozen=True, slots=True)
class FannedOut:
    """How many `events` were taken and how many `deliveries` written, `faults` of events that could not be rendered,
    and the ids of those `set_aside` because they could not too often.
    """

    events: int = 0
    deliveries: int = 0
    faults: tuple[Exception, ...] = ()
    set_aside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rooms:
    """How many deliveries are wanted: `at_most` in all, of each lane what `busy` says or else `each`.

    `after`: lanes are served in the order of their names, beginning behind this one. Nobody else gets what was claimed
    for `lease_seconds`, by the database's clock.
    """

    at_most: int
    each: int
    busy: Mapping[str, int]
    after: str
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of one claim: the `state` that the delivery has now, and when it is due if it is still pending.

    `was_sent` False: it was not attempted after all, and is given back as if it had not been claimed.
    `disables`: its endpoint gets nothing more, and why.
    """

    delivery_id: str
    endpoint_id: str
    claim: int
    state: DeliveryState
    retry_seconds: float | None = None
    status_class: int | None = None
    was_sent: bool = True
    disables: DisabledBecause | None = None

    @property
    def is_delivered(self) -> bool:
        return self.state is DeliveryState.DELIVERED


@dataclass(frozen=True, slots=True)
class DisabledEndpoint:
    id: str
    because: DisabledBecause


class Outbox(Protocol):
    """Every method is one transaction, may be repeated, and raises Busy when the database is away.

    Events are found by their state and never by a number: of two transactions, the one with the lower can commit later.
    """

    async def fan_out(self, bodies: EventBodies, at_most: int) -> FannedOut:
        """Write the deliveries of events that have none yet, the oldest first, and tell who listens.

        An event that cannot be rendered is tried again a few times, then set aside; it keeps no other back.
        """
        ...

    async def claim(self, rooms: Rooms) -> list[Dispatch]:
        """Deliveries that are due, of endpoints that are enabled.

        None, although something is due, if all of it is in lanes up to `after`.
        """
        ...

    async def finish(self, ended: Sequence[Ended], bodies: EventBodies) -> list[DisabledEndpoint]:
        """Write down what became of claims, and which endpoints are disabled by it, and tell who has created those.

        Every attempt is counted. What becomes of the delivery is decided by who claimed it last, unless it has arrived.
        An endpoint of which every attempt has failed for five days is disabled.
        """
        ...

    async def remove_deliveries(self, kept_seconds: float, after: str) -> str | None:
        """Remove those that were made longer ago than that and are over, with callbacks that have none left.

        Looks at a bounded part of all, behind the id `after`; returns the id to go on behind, None at the end.
        """
        ...

    async def forget_secrets(self) -> None:
        """Those of endpoints whose secret was rotated, once they sign nothing any more."""
        ...
