"""Replays since a time, when there is more than a call takes on: what is looked at and what is sent have a bound."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert

from payorder.adapters.database.endpoint_store import DatabaseEndpoints
from payorder.adapters.database.engine import Database
from payorder.adapters.database.ids import id_of, random_tail
from payorder.adapters.database.replays import LOOKED_AT_MAX, REPLAYED_MAX
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import audit_log, events, webhook_deliveries
from payorder.edge.event_bodies import JsonBodies
from payorder.ports.audit import CallRecord
from payorder.ports.endpoints import Replayed, ReplayRequest
from support.records import an_order, by, reply_of
from support.webhooks import add_endpoint, deliveries_of

# After everything else in the audit log, whose clock is the database's.
BEGIN = 4_000_000_000_000
SINCE = datetime.fromtimestamp(BEGIN / 1000, UTC)


class Replays:
    """An endpoint of alice's, and so much that has happened to an order of hers."""

    def __init__(self, database: Database, endpoint_id: str) -> None:
        self._database = database
        self._endpoints = DatabaseEndpoints(database, bodies=JsonBodies(public_url=""), on_change=lambda *_: None)
        self._endpoint_id = endpoint_id

    async def happen(self, order_id: str, numbers: range) -> None:
        """Events that were delivered once, at one moment each."""
        for table, row in ((events, self._event), (webhook_deliveries, self._delivery), (audit_log, self._entry)):
            await self._insert(table, [row(order_id, number) for number in numbers])

    async def call(self, numbers: range) -> None:
        """What is in the audit log and is no event."""
        no_change = {"kind": "call", "to_state": None, "chain": "caller:root"}
        await self._insert(audit_log, [self._entry("", number) | no_change for number in numbers])

    async def replay(self) -> list[int]:
        """How many each call has replayed, until there was nothing more."""
        counts, replayed = [], Replayed(0, "")
        while replayed.go_on_after is not None:
            wanted = ReplayRequest(self._endpoint_id, SINCE, replayed.go_on_after or None)
            call = CallRecord("WebhookService/ReplayDeliveries", "done", by("alice"), "{}")
            replayed = await self._endpoints.replay_since(wanted, call)
            counts.append(replayed.count)
        return counts

    async def _insert(self, table: Any, rows: list[dict[str, Any]]) -> None:
        await self._database.write(lambda connection: connection.execute(insert(table), rows))

    def _event(self, order_id: str, number: int) -> dict[str, Any]:
        kept = {"from_state": "processing", "actor": "payorder", "created_at": BEGIN + number}
        names = {"order_id": order_id, "seq": number + 1, "id": f"event{number}", "subject_id": f"payment{number}"}
        return names | kept | {"type": "payment.failed", "fanned_out_at": BEGIN}

    def _delivery(self, order_id: str, number: int) -> dict[str, Any]:
        names = {"id": f"delivery{number}", "endpoint_id": self._endpoint_id, "event_id": f"event{number}"}
        kept = {"event_type": "payment.failed", "order_id": order_id, "body": b"{}", "created_at": BEGIN}
        return names | kept | {"state": "delivered", "attempts": 1}

    def _entry(self, order_id: str, number: int) -> dict[str, Any]:
        at = BEGIN + number
        told = {"kind": "payment", "object_id": f"payment{number}", "to_state": "failed", "outcome": "done"}
        chained = {"chain": order_id, "seq": 1000 + number, "prev_hash": b"", "hash": b""}
        return {"id": id_of(at, number, random_tail()), "at": at, "actor": "payorder"} | told | chained


async def replays_of(database: Database, store: DatabaseStore) -> tuple[Replays, str]:
    order = an_order()
    await store.add_order(order, by("alice"), reply_of(order), None)
    return Replays(database, await add_endpoint(database)), order.id


async def test_a_replay_goes_on_where_the_call_before_has_stopped(database: Database, store: DatabaseStore) -> None:
    replays, order = await replays_of(database, store)
    await replays.happen(order, range(2 * REPLAYED_MAX + 20))
    assert [REPLAYED_MAX, REPLAYED_MAX, 20] == await replays.replay()
    found = await deliveries_of(database)
    assert {("pending", 1, True)} == {(row.state, row.attempts, row.next_attempt_at is not None) for row in found}


async def test_a_call_looks_at_so_much_and_may_find_nothing(database: Database, store: DatabaseStore) -> None:
    replays, order = await replays_of(database, store)
    await replays.call(range(LOOKED_AT_MAX))
    await replays.happen(order, range(LOOKED_AT_MAX, LOOKED_AT_MAX + 3))
    assert [0, 3] == await replays.replay()
