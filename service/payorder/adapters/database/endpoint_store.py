"""The Endpoints port on a database: each method is one transaction, but `delete`, which may need many."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database import audit, endpoint_deliveries, endpoints, everybodys_endpoints, replays
from payorder.adapters.database.engine import Database
from payorder.domain.idempotency import IdempotencyKey, Replay
from payorder.domain.webhook import Endpoint, EndpointChange
from payorder.ports.audit import CallRecord
from payorder.ports.endpoints import (
    Delivered,
    DeliveryFilter,
    EndpointFilter,
    FoundDeliveries,
    FoundEndpoints,
    NewCallback,
    NewDelivery,
    NewSecret,
    Replayed,
    ReplayRequest,
)
from payorder.ports.outbox import EventBodies
from payorder.ports.store import Page, PageRequest


class DatabaseEndpoints:
    """Implements payorder.ports.endpoints.Endpoints and EverybodysEndpoints.

    `on_change` is told what was written and of whom, after it was.
    """

    def __init__(self, database: Database, *, bodies: EventBodies, on_change: Callable[[str, str], None]) -> None:
        self._database = database
        self._bodies = bodies
        self._on_change = on_change

    async def add(self, endpoint: Endpoint, sealed_secret: bytes, call: CallRecord, *, at_most: int) -> None:
        await self._database.write(lambda connection: endpoints.add(connection, endpoint, sealed_secret, call, at_most))
        self._on_change("webhook.created", endpoint.id)

    async def list_endpoints(self, created_by: str, page: PageRequest) -> Page[Endpoint]:
        async with self._database.read() as connection:
            return await endpoints.list_page(connection, created_by, page)

    async def list_callbacks(self, created_by: str, order_id: str) -> list[Endpoint]:
        async with self._database.read() as connection:
            return await endpoints.list_callbacks(connection, created_by, order_id)

    async def get_endpoint(self, endpoint_id: str, created_by: str) -> Endpoint:
        async with self._database.read() as connection:
            return await endpoints.get(connection, endpoint_id, created_by)

    async def update(self, endpoint_id: str, change: EndpointChange, at: datetime, call: CallRecord) -> Endpoint:
        changed = await self._database.write(
            lambda connection: endpoints.change(connection, endpoint_id, change, at, call)
        )
        self._on_change("webhook.changed", endpoint_id)
        return changed

    async def delete(self, endpoint_id: str, call: CallRecord) -> None:
        await self._database.write(lambda connection: endpoints.begin_removal(connection, endpoint_id, call))
        while await self._database.write(lambda connection: endpoint_deliveries.remove_some(connection, endpoint_id)):
            pass
        await self._database.write(lambda connection: endpoints.remove(connection, endpoint_id, call.origin.actor))
        self._on_change("webhook.deleted", endpoint_id)

    async def rotate(self, endpoint_id: str, secret: NewSecret, at: datetime, call: CallRecord) -> Endpoint:
        rotated = await self._database.write(
            lambda connection: endpoints.rotate(connection, endpoint_id, secret, at, call)
        )
        self._on_change("webhook.rotated", endpoint_id)
        return rotated

    async def find_callback_reply(self, caller: str, key: IdempotencyKey, at: datetime) -> Replay | None:
        return await self._database.write(lambda connection: endpoints.find_reply(connection, caller, key, at))

    async def add_callback(self, callback: NewCallback, call: CallRecord, *, at_most: int) -> Replay | None:
        replay = await self._database.write(
            lambda connection: endpoints.add_callback(connection, callback, call, at_most)
        )
        if replay is None:
            self._on_change("webhook.created", callback.endpoint.id)
        return replay

    async def add_test(self, delivery: NewDelivery, call: CallRecord, *, per_minute_max: int) -> Delivered:
        async def add(connection: AsyncConnection) -> Delivered:
            await audit.add_call(connection, call)
            await endpoints.get_locked(connection, delivery.endpoint_id, call.origin.actor)
            await endpoint_deliveries.refuse_more_tests(connection, delivery, per_minute_max)
            await endpoint_deliveries.add(connection, delivery)
            return await endpoint_deliveries.get(connection, delivery.id)

        added = await self._database.write(add)
        self._on_change("webhook.tested", delivery.endpoint_id)
        return added

    async def find_deliveries(self, wanted: DeliveryFilter, created_by: str, page: PageRequest) -> FoundDeliveries:
        async with self._database.read() as connection:
            await endpoints.get(connection, wanted.endpoint_id, created_by)
            return await endpoint_deliveries.find(connection, wanted, page)

    async def replay_delivery(self, endpoint_id: str, delivery_id: str, call: CallRecord) -> Delivered:
        async def replay(connection: AsyncConnection) -> Delivered:
            await audit.add_call(connection, call)
            endpoint = await endpoints.get(connection, endpoint_id, call.origin.actor)
            endpoint.refuse_unless_theirs(call.origin)
            return await endpoint_deliveries.replay(connection, endpoint_id, delivery_id)

        replayed = await self._database.write(replay)
        self._on_change("webhook.replayed", endpoint_id)
        return replayed

    async def replay_since(self, wanted: ReplayRequest, call: CallRecord) -> Replayed:
        async def replay(connection: AsyncConnection) -> Replayed:
            await audit.add_call(connection, call)
            endpoint = await endpoints.get_kept(connection, wanted.endpoint_id, call.origin.actor)
            endpoint.refuse_unless_theirs(call.origin)
            return await replays.replay_since(connection, endpoint, wanted, self._bodies)

        replayed = await self._database.write(replay)
        self._on_change("webhook.replayed", wanted.endpoint_id)
        return replayed

    async def find_endpoints(self, wanted: EndpointFilter, page: PageRequest) -> FoundEndpoints:
        async with self._database.read() as connection:
            return await everybodys_endpoints.find(connection, wanted, page)

    async def disable(self, endpoint_id: str, at: datetime, call: CallRecord) -> Endpoint:
        disabled = await self._database.write(
            lambda connection: everybodys_endpoints.disable(connection, endpoint_id, at, call)
        )
        self._on_change("webhook.disabled", endpoint_id)
        return disabled

    async def enable(self, endpoint_id: str, at: datetime, call: CallRecord) -> Endpoint:
        enabled = await self._database.write(
            lambda connection: everybodys_endpoints.enable(connection, endpoint_id, at, call)
        )
        self._on_change("webhook.enabled", endpoint_id)
        return enabled
