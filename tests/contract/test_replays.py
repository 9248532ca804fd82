"""Replays since a time, when there is more than a call takes on: what is looked at and what is sent have a bound."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.endpoint_store import DatabaseEndpoints
from payorder.adapters.database.engine import Database
from payorder.adapters.database.ids import id_of, random_tail
from payorder.adapters.database.replays import LOOKED_AT_MAX, REPLAYED_MAX
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import audit_log, events, orders, webhook_deliveries
from payorder.domain.origin import Origin
from payorder.edge.event_bodies import JsonBodies
from payorder.ports.audit import CallRecord
from payorder.ports.endpoints import Replayed, ReplayRequest
from support.records import an_order, by, reply_of
from support.webhooks import add_endpoint, deliveries_of, rows_of

# After everything else in the audit log, whose clock is the database's.
BEGIN = 4_000_000_000_000
SINCE = datetime.fromtimestamp(BEGIN / 1000, UTC)


# Before those that are made now.
ORDER_IDS = [f"0aaaaaaa-aaaa-7aaa-8aaa-{number:06x}aaaaaa" for number in range(2 * LOOKED_AT_MAX + 1)]


class Replays:
    """An endpoint of alice's, by default for her own orders, and so much that has happened to orders."""

    def __init__(self, database: Database, store: DatabaseStore, endpoint_id: str) -> None:
        self._database = database
        self._store = store
        self._endpoints = DatabaseEndpoints(database, bodies=JsonBodies(public_url=""), on_change=lambda *_: None)
        self._endpoint_id = endpoint_id

    async def order(self, owner: str = "alice") -> str:
        order = an_order(owner=owner)
        await self._store.add_order(order, by(owner), reply_of(order), None)
        return order.id

    async def happen(self, order_id: str, numbers: Iterable[int]) -> None:
        """Events that were delivered once, at one moment each."""
        for table, row in ((events, self._event), (webhook_deliveries, self._delivery), (audit_log, self._entry)):
            await self._insert(table, [row(order_id, number) for number in numbers])

    async def call(self, numbers: Iterable[int], chain: str = "caller:root") -> None:
        """What is in the audit log and is no event."""
        no_change = {"kind": "call", "to_state": None}
        await self._insert(audit_log, [self._entry(chain, number) | no_change for number in numbers])

    async def place(self, order_ids: list[str]) -> None:
        """Orders of alice's, of which nothing is in the audit log any more."""
        row = dict((await rows_of(self._database, orders))[0]._mapping)
        await self._insert(orders, [row | {"id": order_id} for order_id in order_ids])

    async def write_down(self, order_ids: list[str]) -> None:
        """That these were placed."""
        placed = {"kind": "order", "to_state": "placed", "seq": 1}
        entries = [self._entry(order_id, number) | placed for number, order_id in enumerate(order_ids)]
        await self._insert(audit_log, entries)

    async def replay(self) -> list[int]:
        """How many each call has replayed, until there was nothing more."""
        counts, replayed = [], Replayed(0, "")
        while replayed.go_on_after is not None:
            replayed = await self.go_on(replayed)
            counts.append(replayed.count)
        return counts

    async def go_on(self, replayed: Replayed, since: datetime = SINCE) -> Replayed:
        wanted = ReplayRequest(self._endpoint_id, since, replayed.go_on_after or None)
        origin = Origin("alice", acts_for_any_owner=True)
        call = CallRecord("WebhookService/ReplayDeliveries", "done", origin, "{}")
        return await self._endpoints.replay_since(wanted, call)

    async def _insert(self, table: Any, rows: list[dict[str, Any]]) -> None:
        async def fill(connection: AsyncConnection) -> None:
            for start in range(0, len(rows), 2000):
                await connection.execute(insert(table), rows[start : start + 2000])

        await self._database.write(fill)

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


async def replays_of(database: Database, store: DatabaseStore, owner: str | None = "alice") -> Replays:
    return Replays(database, store, await add_endpoint(database, owner=owner, created_by="alice"))


@pytest.mark.parametrize("owner", ["alice", None])
async def test_a_replay_goes_on_where_the_call_before_has_stopped(
    database: Database, store: DatabaseStore, owner: str | None
) -> None:
    replays = await replays_of(database, store, owner)
    # Neither order happens at one time.
    for order, numbers in ((await replays.order(), range(0, 1020, 2)), (await replays.order(), range(1, 1020, 2))):
        await replays.happen(order, numbers)
    assert [REPLAYED_MAX, REPLAYED_MAX, 20] == await replays.replay()
    found = await deliveries_of(database)
    assert {("pending", 1, 1, True)} == {
        (row.state, row.attempts, row.claims, row.next_attempt_at is not None) for row in found
    }


async def test_a_call_looks_at_so_much_and_may_find_nothing(database: Database, store: DatabaseStore) -> None:
    replays = await replays_of(database, store, None)
    await replays.call(range(LOOKED_AT_MAX))
    await replays.happen(await replays.order(), range(LOOKED_AT_MAX, LOOKED_AT_MAX + 3))
    assert [0, 3] == await replays.replay()


async def test_of_an_owner_too_a_call_looks_at_so_much(database: Database, store: DatabaseStore) -> None:
    replays = await replays_of(database, store)
    order = await replays.order()
    await replays.call(range(LOOKED_AT_MAX), chain=order)
    await replays.happen(order, range(LOOKED_AT_MAX, LOOKED_AT_MAX + 3))
    assert [0, 3] == await replays.replay()


async def test_orders_to_which_nothing_happened_are_looked_at_too(database: Database, store: DatabaseStore) -> None:
    replays = await replays_of(database, store)
    await replays.order()
    await replays.place(ORDER_IDS)
    # One call stops at an order with an entry, and one at an order without.
    await replays.write_down(ORDER_IDS[: LOOKED_AT_MAX + 5000])
    await replays.happen(ORDER_IDS[-1], [1])
    assert [0, 0, 1] == await replays.replay()


async def test_an_owners_replay_shows_nothing_of_what_others_do(database: Database, store: DatabaseStore) -> None:
    replays = await replays_of(database, store)
    first = await replays.order()
    other = await replays.order("bob")
    last = await replays.order()
    await replays.happen(other, range(LOOKED_AT_MAX + 20))
    for order, begin in ((first, 20_000), (last, 40_000)):
        await replays.happen(order, range(begin, begin + 400))
    replayed = await replays.go_on(Replayed(0, None))
    (stopped_at,) = [row for row in await rows_of(database, audit_log) if row.id == replayed.go_on_after]
    assert (REPLAYED_MAX, last) == (replayed.count, stopped_at.chain)
    assert Replayed(300, None) == await replays.go_on(replayed)


async def test_who_makes_up_a_place_to_go_on_from_does_not_learn_what_others_have(
    database: Database, store: DatabaseStore
) -> None:
    replays = await replays_of(database, store)
    await replays.happen(await replays.order(), range(10))
    # Later than alice's, so that going on from there would find nothing.
    other = await replays.order("bob")
    await replays.happen(other, [20])
    (entry,) = [row.id for row in await rows_of(database, audit_log) if (row.chain, row.seq) == (other, 1)]
    unknown = str(UUID(int=UUID(other).int + 1))
    assert [Replayed(10, None)] * 3 == [await replays.go_on(Replayed(0, place)) for place in (unknown, other, entry)]


async def test_what_happened_before_the_time_is_not_replayed(database: Database, store: DatabaseStore) -> None:
    for owner in ("alice", None):
        replays = await replays_of(database, store, owner)
        order = await replays.order()
        begin = 0 if owner else 10
        await replays.happen(order, range(begin, begin + 10))
        since = datetime.fromtimestamp((BEGIN + begin + 7) / 1000, UTC)
        assert Replayed(3, None) == await replays.go_on(Replayed(0, None), since)


async def test_what_happens_between_two_calls_is_no_reason_to_leave_anything_out(
    database: Database, store: DatabaseStore
) -> None:
    """Or to send it twice. What is new comes by itself, as far as the replay does not come by it."""
    replays = await replays_of(database, store)
    order_ids = [await replays.order() for _ in range(3)]
    for number, order in enumerate(order_ids):
        await replays.happen(order, range(1000 * number, 1000 * number + 400))
    there = {row.id for row in await deliveries_of(database)}
    replayed, new = Replayed(0, ""), 0
    while replayed.go_on_after is not None:
        replayed, new = await replays.go_on(replayed), new + 10
        for number, order in enumerate(order_ids):
            begin = 1000 * number + 400 + new
            await replays.happen(order, range(begin, begin + 10))
    found = await deliveries_of(database)
    assert {1} == {row.claims for row in found if row.id in there}
    assert {0, 1} == {row.claims for row in found if row.id not in there}
