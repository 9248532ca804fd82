"""The Store port on a database: each method is one transaction around the statements of its table."""

from datetime import datetime

from payorder.adapters.database import migrate, orders, payments
from payorder.adapters.database.engine import Database
from payorder.domain.errors import Busy
from payorder.domain.order import Order
from payorder.domain.payment import Payment
from payorder.ports.store import Page, PageRequest


class DatabaseStore:
    """Implements payorder.ports.store.Store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_order(self, order: Order) -> None:
        await self._database.write(lambda connection: orders.add(connection, order))

    async def get_order(self, order_id: str, owner: str) -> Order:
        async with self._database.read() as connection:
            return await orders.get(connection, order_id, owner)

    async def list_orders(self, owner: str, page: PageRequest) -> Page[Order]:
        async with self._database.read() as connection:
            return await orders.list_page(connection, owner, page)

    async def cancel_order(self, order_id: str, owner: str, at: datetime) -> Order:
        return await self._database.write(lambda connection: orders.cancel(connection, order_id, owner, at))

    async def claim(self, payment: Payment, owner: str) -> None:
        await self._database.write(lambda connection: payments.claim(connection, payment, owner))

    async def settle(self, payment: Payment, at: datetime) -> Payment:
        return await self._database.write(lambda connection: payments.settle(connection, payment, at))

    async def get_payment(self, payment_id: str, owner: str) -> Payment:
        async with self._database.read() as connection:
            return await payments.get(connection, payment_id, owner)

    async def get_latest_payment(self, order_id: str, owner: str) -> Payment:
        async with self._database.read() as connection:
            return await payments.get_latest(connection, order_id, owner)

    async def list_payments(self, order_id: str, owner: str, page: PageRequest) -> Page[Payment]:
        async with self._database.read() as connection:
            return await payments.list_page(connection, order_id, owner, page)

    async def is_ready(self) -> bool:
        try:
            async with self._database.read() as connection:
                return await migrate.is_current(connection)
        except Busy:
            return False

    async def close(self) -> None:
        await self._database.close()
