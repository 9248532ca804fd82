"""Cancel an order for an administrator, whatever state it is in.

fence    a payment in flight is cancelled at the processor, which says how it ended; that is settled first.
cancel   one short transaction cancels the order, and reserves the refund of what was paid.
refund   as for the owner's own cancellation.

Nothing is cancelled under a payment whose end is not known.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import assert_never

from payorder.domain.errors import PaymentInProgress
from payorder.domain.idempotency import IdempotencyKey, Replay, Reply
from payorder.domain.order import Order
from payorder.domain.origin import ANY_OWNER, Origin
from payorder.domain.outcome import Approved, Declined, Failed, Outcome, Unknown
from payorder.domain.payment import Payment
from payorder.domain.refund import Refund
from payorder.domain.states import PaymentStatus
from payorder.ports.clock import Clock
from payorder.ports.processor import Processor
from payorder.ports.store import Cancelled, CancelRequest, Store
from payorder.workflows.background import Background

# Between a fence and the cancellation somebody may pay again; who does so that often is to be stopped otherwise.
_FENCES_MAX = 3


@dataclass(frozen=True, slots=True)
class ForceCancelCommand:
    order_id: str
    reason: str
    origin: Origin
    key: IdempotencyKey | None


class ForceCancelOrder:
    def __init__(
        self,
        *,
        store: Store,
        processor: Processor,
        processor_name: str,
        timeout_seconds: float,
        clock: Clock,
        new_id: Callable[[], str],
        render_order: Callable[[Order], Reply],
        render_payment: Callable[[Payment], Reply],
        refund: Callable[[Refund], Coroutine[None, None, None]],
        background: Background,
    ) -> None:
        self._store = store
        self._processor = processor
        self._processor_name = processor_name
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._new_id = new_id
        self._render_order = render_order
        self._render_payment = render_payment
        self._refund = refund
        self._background = background

    async def __call__(self, command: ForceCancelCommand) -> Replay | Order:
        """The cancelled order, also when it was cancelled before.

        Raises OrderNotFound, IdempotencyKeyReused, and PaymentInProgress while nobody knows how a payment ends.
        """
        # A fence that was made must also be written down, whoever hangs up.
        return await asyncio.shield(self._background.start(self._cancel(command)))

    async def _cancel(self, command: ForceCancelCommand) -> Replay | Order:
        for _ in range(_FENCES_MAX):
            try:
                return await self._cancel_if_free(command)
            except PaymentInProgress as live:
                await self._fence(live.payment_id, command.origin)
        return await self._cancel_if_free(command)

    async def _cancel_if_free(self, command: ForceCancelCommand) -> Replay | Order:
        request = CancelRequest(
            command.order_id, command.origin, self._new_id(), self._clock.now(), forced_because=command.reason
        )
        cancelled = await self._store.cancel_order(request, self._render_order, command.key)
        if isinstance(cancelled, Replay):
            return cancelled
        return self._refunding(cancelled)

    def _refunding(self, cancelled: Cancelled) -> Order:
        if cancelled.refund is not None:
            self._background.start(self._refund(cancelled.refund))
        return cancelled.order

    async def _fence(self, payment_id: str, origin: Origin) -> None:
        """Afterwards the payment has ended, by whomever it was settled. Raises PaymentInProgress."""
        payment = await self._store.get_payment(payment_id, ANY_OWNER)
        if payment.status is not PaymentStatus.PROCESSING:
            return
        if payment.processor != self._processor_name:
            raise PaymentInProgress(payment_id)
        ended = _ended(payment, await self._answer(payment))
        await self._store.settle(ended, self._render_payment(ended), self._clock.now(), origin)

    async def _answer(self, payment: Payment) -> Outcome:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._processor.cancel(payment.id, payment.amount)
        except TimeoutError:
            return Unknown()


def _ended(payment: Payment, outcome: Outcome) -> Payment:
    match outcome:
        case Failed():
            return payment.cancelled()
        case Approved() | Declined():
            return payment.after(outcome)
        case Unknown():
            raise PaymentInProgress(payment.id)
        case _:
            assert_never(outcome)
