"""What is removed in the end on both engines: deliveries that are over for long, and what only they needed."""

from typing import Any

import pytest
from sqlalchemy import insert

from payorder.adapters.database.engine import Database
from payorder.adapters.database.ids import id_of, random_tail
from payorder.adapters.database.old_deliveries import LOOKED_AT_MAX
from payorder.adapters.database.outbox import DatabaseOutbox
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import webhook_attempts, webhook_deliveries, webhook_endpoints
from payorder.workflows.forget_deliveries import ForgetDeliveries
from support.records import an_order, by, reply_of
from support.webhooks import add_endpoint, attempts_of, deliveries_of, endpoint_row, rows_of

DAY = 24 * 3600
OLD, NEW = 1_600_000_000_000, 4_000_000_000_000


@pytest.fixture
def outbox(database: Database) -> DatabaseOutbox:
    return DatabaseOutbox(database)


async def forget(outbox: DatabaseOutbox) -> None:
    faults: list[BaseException] = []
    await ForgetDeliveries(outbox=outbox, kept_seconds=30 * DAY, on_fault=faults.append).forget()
    assert [] == faults


async def add_deliveries(database: Database, endpoint_id: str, count: int = 1, **columns: Any) -> list[str]:
    """Their ids. They have ended long ago, unless `columns` say otherwise, each with one attempt."""
    happened_at = columns.pop("happened_at", OLD)
    rows = [
        {
            "id": id_of(happened_at, number, random_tail()),
            "endpoint_id": endpoint_id,
            "event_id": f"event {number} {random_tail()}",
            "event_type": "payment.succeeded",
            "body": b"{}",
            "state": "delivered",
            "attempts": 1,
            "created_at": happened_at,
        }
        | columns
        for number in range(count)
    ]
    attempts = [{"delivery_id": row["id"], "number": 1, "claim": 1, "at": OLD, "delivered": True} for row in rows]
    await database.write(lambda connection: connection.execute(insert(webhook_deliveries), rows))
    await database.write(lambda connection: connection.execute(insert(webhook_attempts), attempts))
    return [str(row["id"]) for row in rows]


async def test_what_is_over_for_long_is_removed_with_its_history(database: Database, outbox: DatabaseOutbox) -> None:
    endpoint = await add_endpoint(database)
    await add_deliveries(database, endpoint)
    await add_deliveries(database, endpoint, state="dead")
    kept = [
        *await add_deliveries(database, endpoint, happened_at=NEW),
        *await add_deliveries(database, endpoint, state="pending", next_attempt_at=NEW),
        # Of an event of long ago that was sent again the other day.
        *await add_deliveries(database, endpoint, created_at=NEW),
    ]
    await forget(outbox)
    assert sorted(kept) == sorted(row.id for row in await deliveries_of(database))
    assert sorted(kept) == sorted(row.delivery_id for row in await attempts_of(database))
    assert "enabled" == (await endpoint_row(database, endpoint)).state


async def test_what_waits_for_an_endpoint_that_is_disabled_does_not_wait_for_ever(
    database: Database, outbox: DatabaseOutbox
) -> None:
    endpoint = await add_endpoint(database, state="disabled", disabled_because="failing")
    await add_deliveries(database, endpoint, state="pending", next_attempt_at=OLD, lane=endpoint)
    kept = await add_deliveries(database, endpoint, happened_at=NEW, state="pending", next_attempt_at=NEW)
    await forget(outbox)
    assert kept == [row.id for row in await deliveries_of(database)]
    assert 1 == len(await rows_of(database, webhook_endpoints))


async def test_a_callback_goes_with_its_delivery_and_one_that_waits_stays(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    orders = [an_order() for _ in range(2)]
    for order in orders:
        await store.add_order(order, by("alice"), reply_of(order), None)
    made = await add_endpoint(database, order_id=orders[0].id, state="disabled", disabled_because="done")
    waits = await add_endpoint(database, order_id=orders[1].id)
    await add_deliveries(database, made)
    await forget(outbox)
    assert [waits] == [row.id for row in await rows_of(database, webhook_endpoints)]


async def test_a_callback_that_still_waits_to_be_sent_stays(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    order = an_order()
    await store.add_order(order, by("alice"), reply_of(order), None)
    callback = await add_endpoint(database, order_id=order.id, state="disabled", disabled_because="done")
    (kept,) = await add_deliveries(database, callback, state="pending", next_attempt_at=NEW)
    await forget(outbox)
    assert [kept] == [row.id for row in await deliveries_of(database)]
    assert [callback] == [row.id for row in await rows_of(database, webhook_endpoints)]


async def test_everything_old_is_removed_however_much_there_is(database: Database, outbox: DatabaseOutbox) -> None:
    endpoint = await add_endpoint(database)
    await add_deliveries(database, endpoint, LOOKED_AT_MAX + 10)
    stays = await add_deliveries(database, endpoint, LOOKED_AT_MAX, state="pending", next_attempt_at=NEW)
    await add_deliveries(database, endpoint, 10)
    await forget(outbox)
    assert sorted(stays) == sorted(row.id for row in await deliveries_of(database))


async def test_a_secret_that_signs_no_more_is_forgotten(database: Database, outbox: DatabaseOutbox) -> None:
    over = await add_endpoint(database, previous_secrets="[]", previous_secret_until=OLD)
    signs = await add_endpoint(database, previous_secrets="[]", previous_secret_until=NEW)
    await forget(outbox)
    rows = [await endpoint_row(database, each) for each in (over, signs)]
    assert [(None, None), ("[]", NEW)] == [(row.previous_secrets, row.previous_secret_until) for row in rows]
