"""Settle what is still open: payments whose charge was not answered or whose process died, and refunds.

Every replica does this; leases in the database keep two from asking after the same one, and the compare-and-set of
settle makes it harmless if they do. Card data is never needed: a charge is never sent again, only cancelled or told.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from payorder.domain.errors import Busy
from payorder.domain.finding import Finding, FindingKind
from payorder.domain.idempotency import Reply
from payorder.domain.outcome import Approved, Declined, Outcome, Unknown
from payorder.domain.payment import Payment
from payorder.domain.refund import Refund
from payorder.domain.states import PaymentStatus
from payorder.ports.clock import Clock
from payorder.ports.processor import Processor, ProcessorAway
from payorder.ports.store import Lease, Store
from payorder.workflows.repeat import repeat

_LEASED_AT_MOST = 50
_COMPARE_FULLY = timedelta(days=1)
_COMPARE_OVERLAP = timedelta(minutes=10)

Item = TypeVar("Item", Payment, Refund)


@dataclass(frozen=True, slots=True)
class ReconcileLimits:
    """How often to look, how long one question to the processor may take, and how often to compare the books.

    Only what `processor_name` was asked for is looked at: another processor has never seen it.
    """

    processor_name: str
    every_seconds: float
    timeout_seconds: float
    compare_every_seconds: float
    compare_timeout_seconds: float

    @property
    def lease(self) -> Lease:
        """Longer than a question takes, and its answer to be written down."""
        return Lease(self.processor_name, _LEASED_AT_MOST, self.timeout_seconds + 10)


class Reconcile:
    """Unknown never becomes failed without proof: the processor's word that it never will charge."""

    def __init__(
        self,
        *,
        store: Store,
        processor: Processor,
        clock: Clock,
        render: Callable[[Payment], Reply],
        limits: ReconcileLimits,
        on_finding: Callable[[Finding], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._processor = processor
        self._clock = clock
        self._render = render
        self._limits = limits
        self._on_finding = on_finding
        self._on_fault = on_fault
        self._stopping = asyncio.Event()
        self._compared_at: datetime | None = None
        self._compared_fully_at = clock.now()

    async def run(self) -> None:
        """Until `stop` or cancelled. A database that is away is asked again at the next round."""
        await asyncio.gather(
            self._repeat(self._settle_payments, self._limits.every_seconds),
            self._repeat(self._settle_refunds, self._limits.every_seconds),
            self._repeat(self.compare_books, self._limits.compare_every_seconds),
        )

    def stop(self) -> None:
        """Let what has begun end, and begin no more: a connection that is cut off in the middle is not closed well."""
        self._stopping.set()

    async def settle_open(self) -> None:
        """One round over everything that is due."""
        await self._settle_payments()
        await self._settle_refunds()

    async def _settle_payments(self) -> None:
        await self._settle_due(self._store.lease_open_payments, self._settle_payment)

    async def _settle_refunds(self) -> None:
        await self._settle_due(self._store.lease_open_refunds, self._settle_refund)

    async def _settle_due(
        self, lease: Callable[[Lease], Awaitable[list[Item]]], settle: Callable[[Item], Awaitable[None]]
    ) -> None:
        """Without a pause as long as there may be more: after an outage thousands can be open."""
        is_full = True
        while is_full and not self._stopping.is_set():
            due = await lease(self._limits.lease)
            await asyncio.gather(*(self._guarded(settle, item) for item in due))
            is_full = len(due) == self._limits.lease.at_most

    async def compare_books(self) -> None:
        """What the processor says it charged, against our payments; with overlap, as neither is written at once."""
        now, since = self._clock.now(), self._compare_since()
        async with asyncio.timeout(self._limits.compare_timeout_seconds):
            charges = await self._processor.charges(since)
        for finding in await self._store.compare(charges):
            self._on_finding(finding)
        self._compared_at = now

    def _compare_since(self) -> datetime:
        """The newest charges each time, and once a day all of that day: a payment may have ended since."""
        now = self._clock.now()
        if self._compared_at is None or now - self._compared_fully_at >= _COMPARE_FULLY:
            self._compared_fully_at = now
            return now - _COMPARE_FULLY - _COMPARE_OVERLAP
        return self._compared_at - _COMPARE_OVERLAP

    async def refund(self, refund: Refund) -> None:
        """The first attempt at a refund, without waiting for the next round. What another took, it alone gives back."""
        if refund.processor == self._limits.processor_name:
            await self._guarded(self._settle_refund, refund)

    async def _settle_payment(self, payment: Payment) -> None:
        settled = payment.after(await self._answer(self._processor.cancel(payment.id, payment.amount)))
        if settled.status is PaymentStatus.PROCESSING:
            await self._store.retry_later(payment)
        else:
            await self._store.settle(settled, self._render(settled), self._clock.now())

    async def _settle_refund(self, refund: Refund) -> None:
        match await self._answer(self._processor.refund(refund.id, refund.reference, refund.amount)):
            case Approved(reference):
                await self._store.settle_refund(refund, reference, self._clock.now())
            case Declined():
                await self._store.settle_refund(refund, None, self._clock.now())
                self._on_finding(Finding(FindingKind.REFUND_DECLINED, refund.payment_id, refund.reference))
            case _:  # Not made, or not known: the same key is asked again until it is.
                await self._store.retry_later(refund)

    async def _answer(self, question: Awaitable[Outcome]) -> Outcome:
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                return await question
        except TimeoutError:
            return Unknown()

    async def _guarded(self, settle: Callable[[Item], Awaitable[None]], item: Item) -> None:
        """One that cannot be settled does not keep the others from it; its lease brings it back."""
        try:
            await settle(item)
        except Busy:
            return
        except Exception as fault:  # noqa: BLE001 - a bug is reported, and the loop goes on
            self._on_fault(fault)

    async def _repeat(self, work: Callable[[], Awaitable[None]], every_seconds: float) -> None:
        await repeat(work, every_seconds, self._stopping, away=(Busy, ProcessorAway), on_fault=self._on_fault)
