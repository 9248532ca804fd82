"""The Outbox port on a database: each method is one transaction around the statements of its tables."""

from collections.abc import Sequence

from payorder.adapters.database import deliveries, fan_out, old_deliveries
from payorder.adapters.database.engine import Database
from payorder.domain.webhook import Dispatch
from payorder.ports.outbox import DisabledEndpoint, Ended, EventBodies, FannedOut, Rooms


class DatabaseOutbox:
    """Implements payorder.ports.outbox.Outbox."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def fan_out(self, bodies: EventBodies, at_most: int) -> FannedOut:
        return await self._database.relay(lambda connection: fan_out.fan_out(connection, bodies, at_most))

    async def claim(self, rooms: Rooms) -> list[Dispatch]:
        return await self._database.relay(lambda connection: deliveries.claim(connection, rooms))

    async def finish(self, ended: Sequence[Ended], bodies: EventBodies) -> list[DisabledEndpoint]:
        return await self._database.relay(lambda connection: deliveries.finish(connection, ended, bodies))

    async def remove_deliveries(self, kept_seconds: float, after: str) -> str | None:
        return await self._database.relay(
            lambda connection: old_deliveries.remove_some(connection, kept_seconds, after)
        )

    async def forget_secrets(self) -> None:
        await self._database.relay(old_deliveries.forget_secrets)
