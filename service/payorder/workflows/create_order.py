"""Place an order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from payorder.domain.idempotency import IdempotencyKey, Replay, Reply
from payorder.domain.money import Money
from payorder.domain.order import Order
from payorder.domain.origin import Origin
from payorder.domain.states import OrderStatus
from payorder.ports.clock import Clock
from payorder.ports.store import Store


@dataclass(frozen=True, slots=True)
class CreateOrderCommand:
    owner: str
    origin: Origin
    total: Money
    pet_id: str | None
    description: str | None
    metadata: Mapping[str, str]
    key: IdempotencyKey | None


class CreateOrder:
    def __init__(
        self, *, store: Store, clock: Clock, new_id: Callable[[], str], render: Callable[[Order], Reply]
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._render = render

    async def __call__(self, command: CreateOrderCommand) -> Replay | Order:
        """The new order, or the answer that this key got before. Raises IdempotencyKeyReused."""
        now = self._clock.now()
        order = Order(
            id=self._new_id(),
            owner=command.owner,
            status=OrderStatus.PLACED,
            total=command.total,
            pet_id=command.pet_id,
            description=command.description,
            metadata=command.metadata,
            created_at=now,
            updated_at=now,
        )
        return await self._store.add_order(order, command.origin, self._render(order), command.key) or order
