"""Pay an order: claim, charge, settle.

claim    one short transaction writes the payment `processing`, and with it the exclusive right to charge.
charge   the processor is called under the payment's id; no transaction is open.
settle   one short transaction writes the outcome to payment and order, for the first who comes with it.

What stays open, because nobody knows or this process dies, is settled by reconcile.py.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from payorder.domain.errors import Busy
from payorder.domain.fingerprint import SourceFingerprints
from payorder.domain.idempotency import IdempotencyKey, Reply
from payorder.domain.money import Money
from payorder.domain.origin import Origin
from payorder.domain.outcome import Outcome, Unknown
from payorder.domain.payment import Payment
from payorder.domain.source import Source
from payorder.domain.states import PaymentStatus
from payorder.ports.clock import Clock
from payorder.ports.processor import Processor
from payorder.ports.store import Store
from payorder.workflows.background import Background

_SETTLE_ATTEMPTS = 5
_SETTLE_WAIT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class PayOrderCommand:
    """`answer_within_seconds`: how long the caller can wait; the payment itself is never cut short."""

    order_id: str
    origin: Origin
    amount: Money
    source: Source
    key: IdempotencyKey | None
    answer_within_seconds: float


@dataclass(frozen=True, slots=True)
class PayOrderAnswer:
    """`is_open`: the outcome is not known yet. `is_replay`: this answer was given before, under the same key."""

    payment_id: str
    reply: Reply
    is_open: bool = False
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class ChargeLimits:
    """`send_within_seconds`: a charge that was not sent this long after its claim began is not sent at all.

    `at_once`: how many payments one process may be making; each holds its card in memory until it is answered.
    `backlog`: how many of them may be with the database, to be claimed or settled, and not with the processor.
    """

    timeout_seconds: float
    send_within_seconds: float
    at_once: int
    backlog: int


class PayOrder:
    """Charge once, whatever the caller does: hanging up changes nothing."""

    def __init__(
        self,
        *,
        store: Store,
        processor: Processor,
        processor_name: str,
        limits: ChargeLimits,
        clock: Clock,
        new_id: Callable[[], str],
        fingerprints: SourceFingerprints,
        render: Callable[[Payment], Reply],
        background: Background,
    ) -> None:
        self._store = store
        self._processor = processor
        self._processor_name = processor_name
        self._limits = limits
        self._clock = clock
        self._new_id = new_id
        self._fingerprints = fingerprints
        self._render = render
        self._background = background
        self._backlog = 0

    async def __call__(self, command: PayOrderCommand) -> PayOrderAnswer:
        """The answer as far as it is known in time.

        Raises what Store.claim raises, and Busy when too many payments are being made; after that, nothing but bugs.
        """
        if len(self._background) >= self._limits.at_once:
            raise Busy
        payment, is_claimed = self._new_payment(command), asyncio.Event()
        # Detached as a whole: a caller who left in the middle would leave the order locked.
        paying = self._background.start(self._pay(payment, command, is_claimed))
        await asyncio.wait({paying}, timeout=max(0, command.answer_within_seconds))
        if not paying.done():
            await _claimed_or_ended(paying, is_claimed)
        return paying.result() if paying.done() else self._still_open(payment)

    async def _pay(self, payment: Payment, command: PayOrderCommand, is_claimed: asyncio.Event) -> PayOrderAnswer:
        # Whoever joins a long queue is only refused later.
        if self._backlog >= self._limits.backlog:
            raise Busy
        began = self._clock.uptime_seconds()
        with self._in_backlog():
            replay = await self._store.claim(payment, command.origin, command.key)
        if replay is not None:
            return PayOrderAnswer(replay.resource_id, replay.reply, is_replay=True)
        is_claimed.set()
        outcome = await self._charge(payment, command.source, began)
        settled = payment.after(outcome)
        # Settlements count with the claims: a process that claims faster than it settles only makes its callers wait.
        with self._in_backlog():
            if settled.status is PaymentStatus.PROCESSING:
                return await self._leave_open(payment)
            return await self._settle(settled, command.origin.as_service())

    async def _charge(self, payment: Payment, source: Source, began: float) -> Outcome:
        # After a long sleep somebody else may have fenced this payment: do not even try.
        if self._clock.uptime_seconds() - began > self._limits.send_within_seconds:
            return Unknown()
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                return await self._processor.charge(payment.id, payment.amount, source)
        except TimeoutError:
            return Unknown()

    async def _settle(self, payment: Payment, origin: Origin) -> PayOrderAnswer:
        """The money has moved or not: that must be written down, here or, if the database stays away, by reconcile."""
        for attempt in range(_SETTLE_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_SETTLE_WAIT_SECONDS * attempt**2)
            with suppress(Busy):
                reply = await self._store.settle(payment, self._render(payment), self._clock.now(), origin)
                return PayOrderAnswer(payment.id, reply)
        return self._still_open(payment)

    async def _leave_open(self, payment: Payment) -> PayOrderAnswer:
        # A refusal would be a lie after the claim. Without the mark the payment is only looked at somewhat later.
        with suppress(Busy):
            await self._store.mark_unknown(payment.id)
        return self._still_open(payment)

    @contextmanager
    def _in_backlog(self) -> Iterator[None]:
        self._backlog += 1
        try:
            yield
        finally:
            self._backlog -= 1

    def _still_open(self, payment: Payment) -> PayOrderAnswer:
        return PayOrderAnswer(payment.id, self._render(payment.still_processing()), is_open=True)

    def _new_payment(self, command: PayOrderCommand) -> Payment:
        return Payment(
            id=self._new_id(),
            order_id=command.order_id,
            amount=command.amount,
            source=command.source.masked(),
            status=PaymentStatus.PROCESSING,
            created_at=self._clock.now(),
            processor=self._processor_name,
            source_fingerprint=self._fingerprints.of(command.source),
        )


async def _claimed_or_ended(paying: "asyncio.Task[PayOrderAnswer]", is_claimed: asyncio.Event) -> None:
    """Before the claim nobody can say whether there is a payment."""
    claiming = asyncio.create_task(is_claimed.wait())
    try:
        await asyncio.wait({paying, claiming}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        claiming.cancel()
