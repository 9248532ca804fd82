"""Say what has happened to the goods of an order: they have left, or they have arrived."""

from collections.abc import Callable

from payorder.domain.idempotency import IdempotencyKey, Replay, Reply
from payorder.domain.order import Order
from payorder.domain.origin import Origin
from payorder.domain.states import OrderStatus
from payorder.ports.clock import Clock
from payorder.ports.store import FulfilRequest, Store


class FulfilOrder:
    def __init__(self, *, store: Store, clock: Clock, render: Callable[[Order], Reply]) -> None:
        self._store = store
        self._clock = clock
        self._render = render

    async def __call__(
        self, order_id: str, status: OrderStatus, origin: Origin, key: IdempotencyKey | None
    ) -> Replay | Order:
        """Raises OrderNotFound, IllegalStatusChange, IdempotencyKeyReused."""
        request = FulfilRequest(order_id, origin, status, self._clock.now())
        return await self._store.fulfil_order(request, self._render, key)
