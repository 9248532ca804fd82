"""What administrators do to endpoints and callbacks of others, on both engines, where the database decides."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.endpoint_store import DatabaseEndpoints
from payorder.adapters.database.engine import Database
from payorder.adapters.database.everybodys_endpoints import LOOKED_AT_MAX
from payorder.adapters.database.outbox import DatabaseOutbox
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import webhook_endpoints
from payorder.domain.errors import WebhookNotFound
from payorder.domain.webhook import Endpoint, EndpointChange, EndpointState
from payorder.edge.event_bodies import JsonBodies
from payorder.ports.audit import CallRecord
from payorder.ports.endpoints import EndpointFilter
from payorder.ports.store import PageRequest
from support.records import LATER, a_payment, an_order, by, reply_of, succeeded
from support.webhooks import add_endpoint, deliveries_of, endpoint_row, pay, rooms

BODIES = JsonBodies(public_url="")
SINCE = 1_767_268_801_234
BY_ADMIN, BY_ALICE = (CallRecord("a method", "done", by(subject), None) for subject in ("root", "alice"))


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def endpoints(database: Database, told: list[tuple[str, str]]) -> DatabaseEndpoints:
    return DatabaseEndpoints(database, bodies=BODIES, on_change=lambda *change: told.append(change))


@pytest.fixture
def outbox(database: Database) -> DatabaseOutbox:
    return DatabaseOutbox(database)


async def pages(endpoints: DatabaseEndpoints, wanted: EndpointFilter, size: int) -> list[list[str]]:
    """Ids on each page, until there is no more."""
    found, after = [], None
    while True:
        page = await endpoints.find_endpoints(wanted, PageRequest(size, after))
        found.append([endpoint.id for endpoint in page.endpoints])
        after = page.go_on_after
        if after is None:
            return found


async def test_a_page_looks_at_so_many_and_the_next_goes_on(database: Database, endpoints: DatabaseEndpoints) -> None:
    """However many callbacks and however few that fit there are, no page takes long, and together they find all."""
    rare = [5, LOOKED_AT_MAX + 7, LOOKED_AT_MAX + 8]
    ids = [f"0aaaaaaa-aaaa-7aaa-8aaa-{number:06x}aaaaaa" for number in range(2 * LOOKED_AT_MAX + 20)]
    row = {"created_by": "alice", "url": "", "event_types": "[]", "secret": b"", "created_at": 0, "updated_at": 0}
    states = [{"state": "enabled", "disabled_because": None}, {"state": "disabled", "disabled_because": "owner"}]

    async def fill(connection: AsyncConnection) -> None:
        rows = [row | states[number in rare] | {"id": id_} for number, id_ in enumerate(ids)]
        for start in range(0, len(rows), 2000):
            await connection.execute(insert(webhook_endpoints), rows[start : start + 2000])

    await database.write(fill)
    newest = [ids[number] for number in reversed(rare)]
    for created_by in (None, "alice"):
        wanted = EndpointFilter(created_by, EndpointState.DISABLED)
        # None of those that the first page looked at fits, but it says where to go on.
        assert [[], newest[:2], newest[2:]] == await pages(endpoints, wanted, 2)
    assert [[]] == await pages(endpoints, EndpointFilter("bob"), 2)
    common = await endpoints.find_endpoints(EndpointFilter(), PageRequest(100, None))
    assert (100, ids[-100]) == (len(common.endpoints), common.go_on_after)


async def test_callbacks_are_not_listed(database: Database, store: DatabaseStore, endpoints: DatabaseEndpoints) -> None:
    order = an_order()
    await store.add_order(order, by("alice"), reply_of(order), None)
    listed = await add_endpoint(database, failing_since=SINCE)
    await add_endpoint(database, order_id=order.id)
    for wanted in (EndpointFilter(), EndpointFilter("alice"), EndpointFilter(state=EndpointState.ENABLED)):
        assert [[listed]] == await pages(endpoints, wanted, 1)
    (found,) = (await endpoints.find_endpoints(EndpointFilter(), PageRequest(1, None))).endpoints
    assert datetime.fromtimestamp(SINCE / 1000, UTC) == found.failing_since


async def test_what_waits_for_an_endpoint_waits_until_an_administrator_enables_it(
    database: Database,
    store: DatabaseStore,
    outbox: DatabaseOutbox,
    endpoints: DatabaseEndpoints,
    told: list[tuple[str, str]],
) -> None:
    endpoint_id = await add_endpoint(database, failing_since=SINCE)
    await pay(store)
    await outbox.fan_out(BODIES, 500)
    await endpoints.disable(endpoint_id, LATER, BY_ADMIN)
    assert [] == await outbox.claim(rooms())
    await pay(store)
    await outbox.fan_out(BODIES, 500)
    assert 2 == len(await deliveries_of(database))
    enabled = await endpoints.enable(endpoint_id, LATER, BY_ADMIN)
    row = await endpoint_row(database, endpoint_id)
    assert ("enabled", None, None) == (row.state, row.disabled_because, row.failing_since) == state_of(enabled)
    assert 2 == len(await outbox.claim(rooms()))
    assert [("webhook.disabled", endpoint_id), ("webhook.enabled", endpoint_id)] == told


def state_of(endpoint: Endpoint) -> tuple[Any, ...]:
    return endpoint.state, endpoint.disabled_because, endpoint.failing_since


async def test_a_callback_that_is_done_is_not_sent_while_it_is_disabled_and_never_made_again(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox, endpoints: DatabaseEndpoints
) -> None:
    order = an_order()
    await store.add_order(order, by("alice"), reply_of(order), None)
    callback = await add_endpoint(database, order_id=order.id)
    payment = a_payment(order)
    await store.claim(payment, by("alice"), None)
    await store.settle(succeeded(payment), reply_of(payment), LATER)
    await outbox.fan_out(BODIES, 500)
    assert "administrator" == (await endpoints.disable(callback, LATER, BY_ADMIN)).disabled_because
    assert [] == await outbox.claim(rooms())
    for _ in range(2):
        assert "done" == (await endpoints.enable(callback, LATER, BY_ADMIN)).disabled_because
    assert [callback] == [dispatch.endpoint_id for dispatch in await outbox.claim(rooms())]


async def test_another_url_has_not_failed_yet(database: Database, endpoints: DatabaseEndpoints) -> None:
    endpoint_id = await add_endpoint(database, failing_since=SINCE)
    for change, since in (
        (EndpointChange(description="x"), SINCE),
        (EndpointChange(url="http://127.0.0.1:1/", state=EndpointState.ENABLED), SINCE),
        (EndpointChange(url="http://127.0.0.1:1/other"), None),
    ):
        await endpoints.update(endpoint_id, change, LATER, BY_ALICE)
        assert since == (await endpoint_row(database, endpoint_id)).failing_since


async def test_what_is_not_there_is_not_found_and_leaves_nothing(
    endpoints: DatabaseEndpoints, told: list[tuple[str, str]]
) -> None:
    for change in (endpoints.disable, endpoints.enable):
        with pytest.raises(WebhookNotFound):
            await change("nothing", LATER, BY_ADMIN)
    assert [] == told
