"""What administrators ask for: everybody's orders, the audit log, and numbers of all of it."""

from dataclasses import dataclass, field
from datetime import datetime

from payorder.domain.money import Currency
from payorder.domain.order import Order
from payorder.domain.states import OrderStatus


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """What is None does not matter. Amounts are in minor units of `currency`, which is given with them."""

    status: OrderStatus | None = None
    owner: str | None = None
    currency: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    amount_minor_min: int | None = None
    amount_minor_max: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Orders that fit a filter, and after which one to look further, if there may be more."""

    orders: list[Order]
    go_on_after: str | None


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """What is None does not matter."""

    order_id: str | None = None
    after: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of the audit log. Of a call, `object_id` is its method, and it has no states."""

    id: str
    chain: str
    seq: int
    at: datetime
    actor: str
    request_id: str | None
    kind: str
    object_id: str
    from_state: str | None
    to_state: str | None
    outcome: str
    detail: str | None
    prev_hash: bytes
    hash: bytes


@dataclass(slots=True)
class MoneyTotal:
    """Minor units of one currency."""

    taken_minor: int = 0
    refunded_minor: int = 0


@dataclass(slots=True)
class Statistics:
    """What happened since a moment, None for the beginning: counts by status, decline code and currency."""

    since: datetime | None
    orders: dict[str, int] = field(default_factory=dict)
    payments: dict[str, int] = field(default_factory=dict)
    decline_codes: dict[str, int] = field(default_factory=dict)
    totals: dict[Currency, MoneyTotal] = field(default_factory=dict)

    @property
    def success_rate(self) -> float | None:
        """Of the attempts that have succeeded or failed, for whatever reason; None if there are none."""
        succeeded, failed = self.payments.get("succeeded", 0), self.payments.get("failed", 0)
        return succeeded / (succeeded + failed) if succeeded + failed else None


@dataclass(frozen=True, slots=True)
class Dashboard:
    """As of `at`; of `total`, orders and payments are those that are in each state now."""

    at: datetime
    total: Statistics
    last_24_hours: Statistics
    last_30_days: Statistics
