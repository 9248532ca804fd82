"""Pay an order: claim, charge, settle.

claim    one short transaction writes the payment `processing`, and with it the exclusive right to charge.
charge   the processor is called under the payment's id; no transaction is open.
settle   one short transaction writes the outcome to payment and order, for the first who comes with it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from payorder.domain.money import Money
from payorder.domain.outcome import Outcome, Unknown
from payorder.domain.payment import Payment
from payorder.domain.source import Source
from payorder.domain.states import PaymentStatus
from payorder.ports.clock import Clock
from payorder.ports.processor import Processor
from payorder.ports.store import Store
from payorder.workflows.background import Background


@dataclass(frozen=True, slots=True)
class PayOrderCommand:
    """`answer_within_seconds`: how long the caller can wait; the payment itself is never cut short."""

    order_id: str
    owner: str
    amount: Money
    source: Source
    answer_within_seconds: float


class PayOrder:
    """Charge once, whatever the caller does: hanging up changes nothing."""

    def __init__(
        self,
        *,
        store: Store,
        processor: Processor,
        processor_name: str,
        charge_timeout_seconds: float,
        clock: Clock,
        new_id: Callable[[], str],
        background: Background,
    ) -> None:
        self._store = store
        self._processor = processor
        self._processor_name = processor_name
        self._charge_timeout_seconds = charge_timeout_seconds
        self._clock = clock
        self._new_id = new_id
        self._background = background

    async def __call__(self, command: PayOrderCommand) -> Payment:
        """The payment as far as it has come: succeeded, failed, or processing when the answer is not known in time.

        Raises what Store.claim raises; after that, nothing but bugs.
        """
        payment = self._new_payment(command)
        # The claim is detached too: a caller who left between claim and charge would leave the order locked.
        paying = self._background.start(self._claim_charge_settle(payment, command))
        try:
            done, _ = await asyncio.wait({paying}, timeout=command.answer_within_seconds)
        except asyncio.CancelledError:
            self._background.disown(paying)
            raise
        if not done:
            self._background.disown(paying)
            return payment
        return paying.result()

    async def _claim_charge_settle(self, payment: Payment, command: PayOrderCommand) -> Payment:
        await self._store.claim(payment, command.owner)
        outcome = await self._charge(payment, command.source)
        settled = payment.after(outcome)
        if settled.status is PaymentStatus.PROCESSING:
            return settled
        return await self._store.settle(settled, self._clock.now())

    async def _charge(self, payment: Payment, source: Source) -> Outcome:
        try:
            async with asyncio.timeout(self._charge_timeout_seconds):
                return await self._processor.charge(payment.id, payment.amount, source)
        except TimeoutError:
            return Unknown()

    def _new_payment(self, command: PayOrderCommand) -> Payment:
        return Payment(
            id=self._new_id(),
            order_id=command.order_id,
            amount=command.amount,
            source=command.source.masked(),
            status=PaymentStatus.PROCESSING,
            created_at=self._clock.now(),
            processor=self._processor_name,
        )
