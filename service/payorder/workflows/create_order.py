"""Place an order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from payorder.domain.money import Money
from payorder.domain.order import Order
from payorder.domain.states import OrderStatus
from payorder.ports.clock import Clock
from payorder.ports.store import Store


@dataclass(frozen=True, slots=True)
class CreateOrderCommand:
    owner: str
    total: Money
    pet_id: str | None
    description: str | None
    metadata: Mapping[str, str]


class CreateOrder:
    def __init__(self, *, store: Store, clock: Clock, new_id: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id

    async def __call__(self, command: CreateOrderCommand) -> Order:
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
        await self._store.add_order(order)
        return order
