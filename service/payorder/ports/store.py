"""What must be remembered, in the workflows' words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from payorder.domain.finding import Finding
from payorder.domain.idempotency import IdempotencyKey, Replay, Reply
from payorder.domain.order import Order
from payorder.domain.origin import SERVICE, Origin, Owner
from payorder.domain.payment import Payment
from payorder.domain.refund import Refund
from payorder.domain.seal import Seal
from payorder.domain.states import OrderStatus
from payorder.ports.admin import AuditEntry, Dashboard, EntryFilter, Found, OrderFilter
from payorder.ports.audit import CallRecord
from payorder.ports.processor import Charge
from payorder.ports.signing import Signer


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list: at most `size` entries that come after the entry `after`, newest first."""

    size: int
    after: str | None


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page, and whether more follow it."""

    items: list[Item]
    has_more: bool

    @classmethod
    def of(cls, items: list[Item], size: int) -> "Page[Item]":
        """A page of `size` out of `items`, which were read with one item to spare."""
        return cls(items[:size], len(items) > size)


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """By the owner, or by an administrator, who says why. `refund_id` is used if the order turns out to be paid."""

    order_id: str
    origin: Origin
    refund_id: str
    at: datetime
    forced_because: str | None = None

    @property
    def method(self) -> str:
        """Whose keys are whose."""
        return "CancelOrder" if self.forced_because is None else "ForceCancelOrder"


@dataclass(frozen=True, slots=True)
class FulfilRequest:
    """Of an administrator: what has happened to the goods."""

    order_id: str
    origin: Origin
    status: OrderStatus
    at: datetime

    @property
    def method(self) -> str:
        return "UpdateOrderStatus"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A cancelled order, and the refund that its payment now awaits, if it had one."""

    order: Order
    refund: Refund | None


@dataclass(frozen=True, slots=True)
class Lease:
    """How many of what `processor` was asked for, and for how long nobody else gets them."""

    processor: str
    at_most: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Interval:
    """What is done once in each; `settled_after_seconds`: how old entries must be for all of their time to be there."""

    every_seconds: float
    settled_after_seconds: float


class CommitUnknown(Exception):
    """The connection was lost during the commit: it may or may not have happened."""


class SealMissing(Exception):
    """A seal that this process has made is not there as it was made."""


class Store(Protocol):
    """Orders and payments. Every method is one short transaction, retried inside when the database asks for it.

    Raises Busy when no connection is to be had in time or the database is away. From the three that begin something
    (add_order, claim, cancel_order) that means nothing happened; they raise CommitUnknown when the connection was lost
    during the commit, and it may have. What only writes down what has happened may always be repeated.

    Where a method takes a key, it answers with the Replay of a request that it has seen, and raises
    IdempotencyKeyReused for another request under the same key. Keys expire (domain.idempotency).
    """

    async def add_order(
        self, order: Order, origin: Origin, reply: Reply, key: IdempotencyKey | None
    ) -> Replay | None: ...

    async def get_order(self, order_id: str, owner: Owner) -> Order:
        """With its receipt, if it is paid. Raises OrderNotFound, for an unknown order and for another owner's alike."""
        ...

    async def list_orders(self, owner: str, page: PageRequest) -> Page[Order]: ...

    async def cancel_order(
        self, cancel: CancelRequest, render: Callable[[Order], Reply], key: IdempotencyKey | None
    ) -> Cancelled | Replay:
        """Cancel, and reserve the refund of a paid order in the same breath. A cancelled order is answered as it is.

        Raises OrderNotFound, PaymentInProgress, and for an owner OrderAlreadyPaid (shipped or delivered).
        """
        ...

    async def fulfil_order(
        self, fulfil: FulfilRequest, render: Callable[[Order], Reply], key: IdempotencyKey | None
    ) -> Order | Replay:
        """Raises OrderNotFound, IllegalStatusChange."""
        ...

    async def claim(self, payment: Payment, origin: Origin, key: IdempotencyKey | None) -> Replay | None:
        """Write a payment that is processing, and with it the exclusive right to charge. The actor must be who owns the
        order, or act for any owner.

        Afterwards no other payment of the order can be claimed until this one has failed.
        Raises OrderNotFound, OrderCancelled, OrderAlreadyPaid, PaymentInProgress (also for a key whose payment is still
        open), CurrencyMismatch, AmountMismatch, and RateLimited, with nothing written.
        """
        ...

    async def settle(self, payment: Payment, reply: Reply, at: datetime, origin: Origin = SERVICE) -> Reply:
        """Write the end of an open payment: payment, order, receipt, events, audit entries and reply, together.

        The first to settle wins; everybody gets the winner's reply.
        """
        ...

    async def mark_unknown(self, payment_id: str) -> None:
        """The charge was not answered: let whoever reconciles look at it now."""
        ...

    async def lease_open_payments(self, lease: Lease) -> list[Payment]:
        """Open payments that are due to be asked after, by the database's clock: no replica's own clock decides."""
        ...

    async def lease_open_refunds(self, lease: Lease) -> list[Refund]: ...

    async def settle_refund(self, refund: Refund, reference: str | None, at: datetime) -> None:
        """Write the end of a refund; `reference` is the processor's, None for one that was declined: a finding."""
        ...

    async def retry_later(self, payment_or_refund: Payment | Refund) -> None:
        """Nothing is known yet: ask again, the later the more often it was asked."""
        ...

    async def compare(self, charges: Sequence[Charge]) -> list[Finding]:
        """What does not fit between the processor's books and ours. New findings are recorded, and answered once."""
        ...

    async def seal_audit_log(self, signer: Signer, when: Interval, known: Seal | None) -> Seal | None:
        """Sign what was written since the last seal; None if that is too early, or another replica has done it.

        Raises SealMissing when `known`, which was made before, is not there as it was: then nothing is signed.
        """
        ...

    async def add_up_statistics(self, when: Interval) -> bool:
        """Keep what the dashboard is made of; whether that was done, as it is not when it is too early."""
        ...

    async def get_dashboard(self) -> Dashboard: ...

    async def find_orders(self, wanted: OrderFilter, page: PageRequest) -> Found:
        """Everybody's. Looks at so many orders that it does not take long, and may find none of those that fit."""
        ...

    async def list_entries(self, wanted: EntryFilter, page: PageRequest) -> Page[AuditEntry]: ...

    async def get_entry(self, entry_id: str) -> AuditEntry:
        """Raises EntryNotFound."""
        ...

    async def record_call(self, call: CallRecord) -> None:
        """Write into the audit log what changes nothing; it may come twice when its commit was not heard of."""
        ...

    async def get_payment(self, payment_id: str, owner: Owner) -> Payment:
        """Raises OrderNotFound."""
        ...

    async def get_latest_payment(self, order_id: str, owner: Owner) -> Payment:
        """Raises OrderNotFound, also for an order that nobody has tried to pay."""
        ...

    async def list_payments(self, order_id: str, owner: Owner, page: PageRequest) -> Page[Payment]:
        """Raises OrderNotFound."""
        ...

    async def is_ready(self) -> bool:
        """Whether the database answers now and has this version's schema."""
        ...

    async def close(self) -> None: ...
