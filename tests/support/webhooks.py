"""Endpoints and events as they stand in the database, and a receiver that writes down what it gets."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from sqlalchemy import insert, select, text

from payorder.adapters.database.engine import Database
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import webhook_attempts, webhook_deliveries, webhook_endpoints
from payorder.adapters.sealing import FernetBox
from payorder.adapters.system import new_id
from payorder.config import Settings
from payorder.domain.order import Order
from payorder.domain.payment import Payment
from payorder.domain.secret import Secret
from payorder.domain.webhook_signature import SignatureRefused, verify
from payorder.ports.outbox import Rooms
from support.records import LATER, a_payment, an_order, by, reply_of, succeeded

SECRET = Secret("whsec_" + base64.b64encode(b"a secret of thirty-two bytes, oh").decode())


def box() -> FernetBox:
    """That of development."""
    return FernetBox(Settings(issuer="urn:none", jwks="none", env="development").sealing_keys)


async def add_endpoint(
    database: Database,
    url: str = "http://127.0.0.1:1/",
    *,
    owner: str | None = "alice",
    event_types: Sequence[str] = (),
    order_id: str | None = None,
    secret: Secret = SECRET,
    **columns: Any,
) -> str:
    """Its id. With an `order_id` it is a callback."""
    row = {
        "id": new_id(),
        "created_by": owner or "service",
        "owner_sub": owner,
        "order_id": order_id,
        "url": url,
        "event_types": json.dumps(list(event_types)),
        "state": "enabled",
        "secret": None if order_id else box().seal(secret),
        "created_at": 0,
        "updated_at": 0,
    }
    await database.write(lambda connection: connection.execute(insert(webhook_endpoints), row | columns))
    return str(row["id"])


async def pay(store: DatabaseStore, **order: Any) -> tuple[Order, Payment]:
    """A paid order, as it was before, and with it two events."""
    placed = an_order(**order)
    payment = a_payment(placed)
    await store.add_order(placed, by(placed.owner), reply_of(placed), None)
    await store.claim(payment, by(placed.owner), None)
    await store.settle(succeeded(payment), reply_of(payment), LATER, by(placed.owner))
    return placed, succeeded(payment)


def rooms(at_most: int = 1000, **changes: Any) -> Rooms:
    wanted: dict[str, Any] = {"at_most": at_most, "each": 1000, "busy": {}, "after": "", "lease_seconds": 60.0}
    return Rooms(**wanted | changes)


async def rows_of(database: Database, table: Any) -> list[Any]:
    async with database.read() as connection:
        return list((await connection.execute(select(table))).all())


async def deliveries_of(database: Database) -> list[Any]:
    return await rows_of(database, webhook_deliveries)


async def attempts_of(database: Database) -> list[Any]:
    return await rows_of(database, webhook_attempts)


async def endpoint_row(database: Database, endpoint_id: str) -> Any:
    return next(row for row in await rows_of(database, webhook_endpoints) if row.id == endpoint_id)


async def execute(database: Database, words: str, **values: Any) -> None:
    """`words` are SQL, for what time alone would do otherwise."""
    await database.write(lambda connection: connection.execute(text(words), values))


@dataclass(frozen=True, slots=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass(slots=True)
class Receiver:
    """`answer` says what a request is answered with."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    answer: Callable[[Received], web.StreamResponse] = lambda _: web.Response()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        received = Received(request.path, dict(request.headers), await request.read())
        self.received.append(received)
        return self.answer(received)


def is_signed_with(received: Received, secret: str) -> bool:
    headers = {name.lower(): value for name, value in received.headers.items()}
    try:
        verify(headers, received.body, [Secret(secret)], now=int(headers["webhook-timestamp"]))
    except SignatureRefused:
        return False
    return True


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
