"""Cancel an order; one that is paid is refunded."""

from collections.abc import Callable, Coroutine

from payorder.domain.idempotency import IdempotencyKey, Replay, Reply
from payorder.domain.order import Order
from payorder.domain.origin import Origin
from payorder.domain.refund import Refund
from payorder.ports.clock import Clock
from payorder.ports.store import CancelRequest, Store
from payorder.workflows.background import Background


class CancelOrder:
    """The refund is reserved with the cancellation; the processor is called afterwards, and again until it answers."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        new_id: Callable[[], str],
        render: Callable[[Order], Reply],
        refund: Callable[[Refund], Coroutine[None, None, None]],
        background: Background,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._render = render
        self._refund = refund
        self._background = background

    async def __call__(self, order_id: str, origin: Origin, key: IdempotencyKey | None) -> Replay | Order:
        """The cancelled order, also when it was cancelled before.

        Raises OrderNotFound, PaymentInProgress, OrderAlreadyPaid (shipped or delivered), IdempotencyKeyReused.
        """
        request = CancelRequest(order_id, origin, refund_id=self._new_id(), at=self._clock.now())
        cancelled = await self._store.cancel_order(request, self._render, key)
        if isinstance(cancelled, Replay):
            return cancelled
        if cancelled.refund is not None:
            self._background.start(self._refund(cancelled.refund))
        return cancelled.order
