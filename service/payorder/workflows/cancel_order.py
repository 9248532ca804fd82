"""Cancel an order that has not been paid."""

from payorder.domain.order import Order
from payorder.ports.clock import Clock
from payorder.ports.store import Store


class CancelOrder:
    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def __call__(self, order_id: str, owner: str) -> Order:
        """The cancelled order, also when it was cancelled before.

        Raises OrderNotFound, PaymentInProgress, OrderAlreadyPaid.
        """
        return await self._store.cancel_order(order_id, owner, self._clock.now())
