"""The outbox on both engines: every event becomes its deliveries once, and every delivery is one attempt at a time."""

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from payorder.adapters.database import overlaps
from payorder.adapters.database.endpoint_store import DatabaseEndpoints
from payorder.adapters.database.engine import Database
from payorder.adapters.database.outbox import DatabaseOutbox
from payorder.adapters.database.overlaps import Overlap
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import events
from payorder.domain.event import Event
from payorder.domain.webhook import DeliveryState, DisabledBecause, Dispatch
from payorder.edge.event_bodies import JsonBodies
from payorder.ports.audit import CallRecord
from payorder.ports.outbox import DisabledEndpoint, Ended, FannedOut
from support.records import LATER, a_payment, an_order, by, failed, reply_of, succeeded
from support.webhooks import add_endpoint, attempts_of, deliveries_of, endpoint_row, execute, pay, rooms, rows_of

COLLATION_OF_LANES = """
SELECT collname FROM pg_attribute JOIN pg_collation ON pg_collation.oid = attcollation
WHERE attrelid = 'webhook_deliveries'::regclass AND attname = 'lane'
"""
BODIES = JsonBodies(public_url="https://shop.example")
OPERATING = Path(__file__).parents[2] / "docs/operating.md"
# An order of 2025.
OLD = "019a0000-0000-7000-8000-000000000000"


@pytest.fixture
def outbox(database: Database) -> DatabaseOutbox:
    return DatabaseOutbox(database)


def ended(dispatch: Dispatch, state: DeliveryState = DeliveryState.DELIVERED, **changes: Any) -> Ended:
    """Delivered, or else failed and due again at once."""
    is_pending = state is DeliveryState.PENDING
    made = Ended(
        delivery_id=dispatch.delivery_id,
        endpoint_id=dispatch.endpoint_id,
        claim=dispatch.claim,
        state=state,
        retry_seconds=0 if is_pending else None,
        status_class=2 if state is DeliveryState.DELIVERED else 5,
    )
    return replace(made, **changes)


async def fan_out(outbox: DatabaseOutbox) -> FannedOut:
    return await outbox.fan_out(BODIES, 500)


async def dispatches(outbox: DatabaseOutbox, store: DatabaseStore) -> list[Dispatch]:
    """Those of a paid order, claimed: of the payment and of the order."""
    await pay(store)
    await fan_out(outbox)
    return sorted(await outbox.claim(rooms()), key=lambda dispatch: dispatch.event_id)


# Fan-out


async def test_every_event_becomes_a_delivery_for_every_endpoint_that_hears_of_it(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    hers, everybodys = await add_endpoint(database), await add_endpoint(database, owner=None)
    await add_endpoint(database, owner="bob")
    order, _ = await pay(store)
    assert FannedOut(events=2, deliveries=4) == await fan_out(outbox)
    found = {(row.endpoint_id, row.event_type, row.order_id) for row in await deliveries_of(database)}
    types = ("payment.succeeded", "order.statusChanged")
    assert {(endpoint, type_, order.id) for endpoint in (hers, everybodys) for type_ in types} == found
    assert FannedOut() == await fan_out(outbox)


async def test_an_endpoint_hears_only_of_the_types_it_wants(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    await add_endpoint(database, event_types=["payment.succeeded", "refund.failed"])
    await pay(store)
    await fan_out(outbox)
    assert ["payment.succeeded"] == [row.event_type for row in await deliveries_of(database)]


async def test_an_endpoint_that_is_disabled_hears_of_nothing(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    await add_endpoint(database, state="disabled", disabled_because="owner")
    await pay(store)
    assert FannedOut(events=2) == await fan_out(outbox)


async def test_all_deliveries_of_an_event_have_the_same_bytes(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    for _ in range(3):
        await add_endpoint(database)
    await pay(store)
    await fan_out(outbox)
    bodies: dict[str, set[bytes]] = {}
    for row in await deliveries_of(database):
        bodies.setdefault(row.event_id, set()).add(row.body)
    assert [1, 1] == [len(each) for each in bodies.values()]


async def test_racing_dispatchers_write_each_delivery_once_and_leave_no_event(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    await add_endpoint(database)
    for _ in range(30):
        await pay(store)
    second = Database(database.url.render_as_string(hide_password=False), pool_size=5, pool_timeout_seconds=5)
    done = await asyncio.gather(
        *(each.fan_out(BODIES, 7) for each in (outbox, DatabaseOutbox(second)) for _ in range(10))
    )
    await second.close()
    assert (60, 60) == (sum(each.events for each in done), sum(each.deliveries for each in done))
    assert 60 == len({row.event_id for row in await deliveries_of(database)})


async def test_an_event_that_is_committed_after_later_ones_is_not_skipped(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    if database.url.get_backend_name() == "sqlite":
        pytest.skip("SQLite has one writer: the order of commits is that of the writes")
    await add_endpoint(database)
    late = an_order()
    await store.add_order(late, by("alice"), reply_of(late), None)
    connection = await asyncpg.connect(database.url.set(drivername="postgresql").render_as_string(hide_password=False))
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "INSERT INTO events (order_id, seq, id, type, subject_id, from_state, actor, created_at)"
        " VALUES ($1, 1, 'early', 'order.cancelled', $1, 'placed', 'alice', 0)",
        late.id,
    )
    await pay(store)
    assert 2 == (await fan_out(outbox)).events
    await transaction.commit()
    await connection.close()
    assert 1 == (await fan_out(outbox)).events
    assert 3 == len(await deliveries_of(database))


class Poisonous(JsonBodies):
    """Cannot render the events of one order."""

    def __init__(self, order_id: str) -> None:
        super().__init__(public_url="")
        self._order_id = order_id

    def event(self, event: Event) -> bytes:
        if event.order.id == self._order_id:
            raise RuntimeError("poison")
        return super().event(event)


async def test_a_poison_event_is_set_aside_after_a_few_tries_and_keeps_no_other_back(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    await add_endpoint(database)
    poison, _ = await pay(store)
    good, _ = await pay(store)
    bodies = Poisonous(poison.id)
    rounds = [await outbox.fan_out(bodies, 500) for _ in range(6)]
    assert [4, 2, 2, 2, 2, 0] == [done.events for done in rounds]
    assert [2, 2, 2, 2, 2, 0] == [len(done.faults) for done in rounds]
    assert [0, 0, 0, 0, 2, 0] == [len(done.set_aside) for done in rounds]
    assert {good.id} == {row.order_id for row in await deliveries_of(database)}
    # Nothing of it is lost: with a service that can, it goes out.
    await execute(database, "UPDATE events SET faults = 0 WHERE fanned_out_at IS NULL")
    assert FannedOut(events=2, deliveries=2) == await fan_out(outbox)


async def test_the_documented_deletion_of_old_events_leaves_those_that_have_not_gone_out(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    await add_endpoint(database)
    await pay(store, id=OLD)
    await fan_out(outbox)
    set_aside, _ = await pay(store, id=OLD.replace("7000", "7001"))
    while (await outbox.fan_out(Poisonous(set_aside.id), 500)).events:
        pass
    new, _ = await pay(store)
    await fan_out(outbox)
    pending, _ = await pay(store, id=OLD.replace("7000", "7002"))
    (deletion,) = re.findall(r"^DELETE FROM events .*;$", OPERATING.read_text(), re.MULTILINE)
    await execute(database, deletion)
    left = [row.order_id for row in await rows_of(database, events)]
    assert sorted([set_aside.id, new.id, pending.id] * 2) == sorted(left)
    (release,) = re.findall(r"^UPDATE events .*;$", OPERATING.read_text(), re.MULTILINE)
    await execute(database, release)
    assert FannedOut(events=4, deliveries=4) == await fan_out(outbox)


async def test_a_callback_is_told_once_of_the_first_end(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    order = an_order()
    await store.add_order(order, by("alice"), reply_of(order), None)
    callback = await add_endpoint(database, order_id=order.id)
    for _ in range(2):
        payment = a_payment(order)
        await store.claim(payment, by("alice"), None)
        await store.settle(failed(payment), reply_of(payment), LATER)
    assert FannedOut(events=2, deliveries=1) == await fan_out(outbox)
    row = await endpoint_row(database, callback)
    assert ("disabled", "done") == (row.state, row.disabled_because)
    # Its endpoint is done, and the delivery goes out nevertheless.
    (dispatch,) = await outbox.claim(rooms())
    assert (callback, ()) == (dispatch.endpoint_id, dispatch.sealed_secrets)


async def test_a_callback_hears_only_of_what_happened_after_it_was_asked_for(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    order = an_order()
    await store.add_order(order, by("alice"), reply_of(order), None)
    declined, paid = a_payment(order), a_payment(order)
    await store.claim(declined, by("alice"), None)
    await store.settle(failed(declined), reply_of(declined), LATER)
    # The decline is not told yet when somebody asks, and pays again.
    await add_endpoint(database, order_id=order.id, after_seq=1)
    await store.claim(paid, by("alice"), None)
    await store.settle(succeeded(paid), reply_of(paid), LATER)
    assert FannedOut(events=3, deliveries=1) == await fan_out(outbox)
    (dispatch,) = await outbox.claim(rooms())
    assert "COMPLETED" == json.loads(dispatch.body)["status"]


async def test_who_listens_is_told_of_which_orders_there_is_something_new(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    if database.url.get_backend_name() == "sqlite":
        pytest.skip("SQLite tells nobody anything")
    heard: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(database.url.set(drivername="postgresql").render_as_string(hide_password=False))
    await connection.add_listener("payorder_events", lambda *told: heard.put_nowait(told[-1]))
    orders = [(await pay(store))[0].id for _ in range(2)]
    await fan_out(outbox)
    async with asyncio.timeout(10):
        assert set(orders) == set((await heard.get()).split(","))
    await connection.close()


# Claim


async def test_racing_dispatchers_never_claim_the_same_delivery(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    for _ in range(4):
        await add_endpoint(database)
    for _ in range(10):
        await pay(store)
    await fan_out(outbox)
    claims = await asyncio.gather(*(outbox.claim(rooms(each=5)) for _ in range(12)))
    claimed = [dispatch.delivery_id for claim in claims for dispatch in claim]
    assert (80, 80) == (len(claimed), len(set(claimed)))
    assert [] == await outbox.claim(rooms())


async def test_every_endpoint_has_its_own_room(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    slow, quick, full = [await add_endpoint(database) for _ in range(3)]
    for _ in range(5):
        await pay(store)
    await fan_out(outbox)
    claimed = await outbox.claim(rooms(each=8, busy={slow: 1, full: 0}))
    assert [quick] * 8 + [slow] == sorted([each.endpoint_id for each in claimed], key=lambda id_: id_ == slow)


async def test_endpoints_are_served_in_turn(database: Database, store: DatabaseStore, outbox: DatabaseOutbox) -> None:
    first, second = sorted([await add_endpoint(database) for _ in range(2)])
    for _ in range(2):
        await pay(store)
    await fan_out(outbox)
    assert {first} == {each.endpoint_id for each in await outbox.claim(rooms(2))}
    assert {second} == {each.endpoint_id for each in await outbox.claim(rooms(2, after=first))}
    assert [] == await outbox.claim(rooms(after=second))


async def test_a_claim_that_nobody_finishes_is_made_again_when_its_lease_is_over(
    store: DatabaseStore, database: Database, outbox: DatabaseOutbox
) -> None:
    await add_endpoint(database)
    first = await dispatches(outbox, store)
    assert [] == await outbox.claim(rooms())
    await execute(database, "UPDATE webhook_deliveries SET next_attempt_at = next_attempt_at - 60000")
    again = sorted(await outbox.claim(rooms()), key=lambda dispatch: dispatch.event_id)
    # Whoever had it first is not known to have sent it: it is as if it had not been claimed.
    assert [replace(dispatch, claim=2) for dispatch in first] == again
    await outbox.finish([ended(dispatch) for dispatch in again], BODIES)
    assert {("delivered", 1)} == {(row.state, row.attempts) for row in await deliveries_of(database)}
    assert {1} == {row.number for row in await attempts_of(database)}


@pytest.mark.parametrize("end", ["disable", "delete"])
async def test_an_endpoint_that_is_disabled_or_deleted_is_sent_nothing(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox, end: str
) -> None:
    endpoint_id = await add_endpoint(database)
    await pay(store)
    await fan_out(outbox)
    words = {
        "disable": "UPDATE webhook_endpoints SET state = 'disabled', disabled_because = 'owner' WHERE id = :id",
        "delete": "DELETE FROM webhook_endpoints WHERE id = :id",
    }
    await execute(database, words[end], id=endpoint_id)
    assert [] == await outbox.claim(rooms())


async def test_deliveries_of_an_endpoint_go_on_when_it_is_enabled_again(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    endpoint_id = await add_endpoint(database)
    await pay(store)
    await fan_out(outbox)
    await execute(database, "UPDATE webhook_endpoints SET state = 'disabled', disabled_because = 'owner'")
    assert [] == await outbox.claim(rooms())
    await execute(database, "UPDATE webhook_endpoints SET state = 'enabled', disabled_because = NULL")
    assert [endpoint_id] * 2 == [each.endpoint_id for each in await outbox.claim(rooms())]


async def test_the_previous_secret_signs_until_its_time_is_over(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    day = 24 * 3600 * 1000
    for until in (1, 4_000_000_000_000 + day):
        previous = overlaps.write([Overlap(1, b"over"), Overlap(until, b"previous")])
        await add_endpoint(database, previous_secrets=previous, previous_secret_until=until)
    claimed = await dispatches(outbox, store)
    assert [1, 1, 2, 2] == sorted(len(dispatch.sealed_secrets) for dispatch in claimed)


# Finish


async def test_what_was_delivered_is_not_claimed_again(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    await add_endpoint(database)
    claimed = await dispatches(outbox, store)
    await outbox.finish([ended(dispatch) for dispatch in claimed], BODIES)
    assert [("delivered", 1, None)] * 2 == [
        (row.state, row.attempts, row.next_attempt_at) for row in await deliveries_of(database)
    ]
    assert [(1, 2, True)] * 2 == [(row.number, row.status_class, row.delivered) for row in await attempts_of(database)]


async def test_what_failed_is_due_again_when_it_was_said(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    await add_endpoint(database)
    now, later = await dispatches(outbox, store)
    await outbox.finish(
        [ended(now, DeliveryState.PENDING), ended(later, DeliveryState.PENDING, retry_seconds=300)], BODIES
    )
    assert [(now.delivery_id, 2)] == [(each.delivery_id, each.number) for each in await outbox.claim(rooms())]


async def test_what_is_given_up_keeps_its_history(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    await add_endpoint(database, event_types=["payment.succeeded"])
    (dispatch,) = await dispatches(outbox, store)
    await outbox.finish([ended(dispatch, DeliveryState.PENDING, status_class=None)], BODIES)
    (dispatch,) = await outbox.claim(rooms())
    await outbox.finish([ended(dispatch, DeliveryState.DEAD)], BODIES)
    assert ["dead"] == [row.state for row in await deliveries_of(database)]
    history = [(row.number, row.status_class, row.delivered) for row in await attempts_of(database)]
    assert [(1, None, False), (2, 5, False)] == sorted(history)


async def test_what_was_given_back_counts_as_never_claimed(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    await add_endpoint(database)
    claimed = await dispatches(outbox, store)
    await outbox.finish([ended(each, DeliveryState.PENDING, was_sent=False) for each in claimed], BODIES)
    again = sorted(await outbox.claim(rooms()), key=lambda dispatch: dispatch.event_id)
    assert ([replace(each, claim=2) for each in claimed], []) == (again, await attempts_of(database))


async def twice_claimed(database: Database, store: DatabaseStore, outbox: DatabaseOutbox) -> list[Dispatch]:
    """By one who was late, and by another one since."""
    await add_endpoint(database, event_types=["payment.succeeded"])
    (late,) = await dispatches(outbox, store)
    await execute(database, "UPDATE webhook_deliveries SET next_attempt_at = 0")
    return [late, *await outbox.claim(rooms())]


async def test_whoever_finishes_too_late_changes_nothing_but_the_history(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    late, second = await twice_claimed(database, store, outbox)
    await outbox.finish([ended(late, DeliveryState.DEAD)], BODIES)
    assert ["pending"] == [row.state for row in await deliveries_of(database)]
    await outbox.finish([ended(second)], BODIES)
    await outbox.finish([ended(second, DeliveryState.PENDING)], BODIES)
    assert [("delivered", 2)] == [(row.state, row.attempts) for row in await deliveries_of(database)]
    assert {(1, False), (2, True)} == {(row.number, row.delivered) for row in await attempts_of(database)}


async def test_what_has_arrived_has_arrived_whoever_says_it(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    late, second = await twice_claimed(database, store, outbox)
    await outbox.finish([ended(late)], BODIES)
    await outbox.finish([ended(second, DeliveryState.DEAD)], BODIES)
    assert [("delivered", 2)] == [(row.state, row.attempts) for row in await deliveries_of(database)]
    assert [] == await outbox.claim(rooms())


async def test_two_attempts_that_are_written_down_together_are_two(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    late, second = await twice_claimed(database, store, outbox)
    await outbox.finish([ended(late, DeliveryState.DEAD), ended(second)], BODIES)
    assert [("delivered", 2)] == [(row.state, row.attempts) for row in await deliveries_of(database)]
    assert {(1, False), (2, True)} == {(row.number, row.delivered) for row in await attempts_of(database)}


@pytest.mark.parametrize("state", [DeliveryState.DELIVERED, DeliveryState.PENDING])
async def test_an_attempt_that_is_written_down_twice_counts_once(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox, state: DeliveryState
) -> None:
    """As when the answer to a commit is lost."""
    await add_endpoint(database, event_types=["payment.succeeded"])
    (dispatch,) = await dispatches(outbox, store)
    for _ in range(2):
        await outbox.finish([ended(dispatch, state)], BODIES)
    assert [1] == [row.attempts for row in await deliveries_of(database)]
    assert [1] == [row.number for row in await attempts_of(database)]


async def ask_and_pay(database: Database, store: DatabaseStore, caller: str) -> None:
    """A callback that `caller` has asked for, of an order that is paid then."""
    order = an_order()
    payment = a_payment(order)
    await store.add_order(order, by("alice"), reply_of(order), None)
    await add_endpoint(database, order_id=order.id, created_by=caller)
    await store.claim(payment, by("alice"), None)
    await store.settle(succeeded(payment), reply_of(payment), LATER)


async def test_callbacks_of_one_caller_wait_in_one_lane(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    for caller in ("alice", "alice", "bob"):
        await ask_and_pay(database, store, caller)
    await fan_out(outbox)
    first = await outbox.claim(rooms(each=1))
    assert ["alice", "bob"] == sorted(dispatch.caller for dispatch in first)
    assert ["alice"] == [dispatch.caller for dispatch in await outbox.claim(rooms(each=1))]


async def test_lanes_are_in_the_order_of_their_bytes(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    """As Python compares them, or one behind which a claim goes on could be missed."""
    if database.url.get_backend_name() == "postgresql":
        # This server's own order may be the same by chance.
        async with database.read() as connection:
            assert "C" == (await connection.exec_driver_sql(COLLATION_OF_LANES)).scalar_one()
    callers = ["a-b", "aB", "ab", "zoë", "Zoe", "ﬀ", "𝔘"]  # noqa: RUF001 - what databases sort otherwise
    for caller in callers:
        await ask_and_pay(database, store, caller)
    await fan_out(outbox)
    served: list[str] = []
    while claimed := await outbox.claim(rooms(1, after=served[-1] if served else "")):
        served += [dispatch.lane for dispatch in claimed]
    assert [f"callbacks of {caller}" for caller in sorted(callers)] == served


async def test_an_endpoint_deleted_during_an_attempt_takes_all_of_it_along(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    gone = await add_endpoint(database)
    stays = await add_endpoint(database)
    claimed = await dispatches(outbox, store)
    await execute(database, "DELETE FROM webhook_endpoints WHERE id = :id", id=gone)
    await outbox.finish([ended(dispatch) for dispatch in claimed], BODIES)
    assert {(stays, "delivered")} == {(row.endpoint_id, row.state) for row in await deliveries_of(database)}
    assert 2 == len(await attempts_of(database))


# Endpoints that fail

DAY = 24 * 3600 * 1000
AGE = "UPDATE webhook_endpoints SET failing_since = failing_since - :milliseconds"


@pytest.fixture
async def endpoint_id(database: Database) -> str:
    return await add_endpoint(database)


async def test_one_delivery_is_enough_for_an_endpoint_not_to_be_failing(
    endpoint_id: str, database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    first, second = await dispatches(outbox, store)
    await outbox.finish([ended(first, DeliveryState.PENDING)], BODIES)
    assert (await endpoint_row(database, endpoint_id)).failing_since
    await outbox.finish([ended(second)], BODIES)
    assert (await endpoint_row(database, endpoint_id)).failing_since is None


async def test_an_endpoint_that_has_only_failed_for_five_days_is_disabled(
    endpoint_id: str, database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    first, second = await dispatches(outbox, store)
    await outbox.finish([ended(first, DeliveryState.PENDING)], BODIES)
    await execute(database, AGE, milliseconds=4 * DAY)
    assert [] == await outbox.finish([ended(second, DeliveryState.PENDING)], BODIES)
    await execute(database, AGE, milliseconds=DAY)
    (third, fourth) = await outbox.claim(rooms())
    disabled = await outbox.finish([ended(third, DeliveryState.PENDING), ended(fourth, DeliveryState.PENDING)], BODIES)
    assert [DisabledEndpoint(endpoint_id, DisabledBecause.FAILING)] == disabled
    assert "disabled" == (await endpoint_row(database, endpoint_id)).state
    assert {"pending"} == {row.state for row in await deliveries_of(database)}


async def test_an_endpoint_that_is_gone_is_disabled_at_once(
    endpoint_id: str, database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    first, _ = await dispatches(outbox, store)
    gone = ended(first, DeliveryState.PENDING, disables=DisabledBecause.GONE, status_class=4)
    disabled = await outbox.finish([gone], BODIES)
    assert [DisabledEndpoint(endpoint_id, DisabledBecause.GONE)] == disabled
    assert "gone" == (await endpoint_row(database, endpoint_id)).disabled_because
    assert [] == await outbox.claim(rooms())


async def test_every_event_is_marked_even_if_nobody_hears_of_it(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    await pay(store)
    await fan_out(outbox)
    assert all(row.fanned_out_at for row in await rows_of(database, events))


# What is sent again


@pytest.mark.parametrize("state", [DeliveryState.DEAD, DeliveryState.PENDING])
async def test_what_is_to_be_sent_again_is_whatever_becomes_of_the_attempt_that_is_under_way(
    database: Database, store: DatabaseStore, outbox: DatabaseOutbox, state: DeliveryState
) -> None:
    endpoint_id = await add_endpoint(database, event_types=["payment.succeeded"])
    (under_way,) = await dispatches(outbox, store)
    endpoints = DatabaseEndpoints(database, bodies=BODIES, on_change=lambda *_: None)
    call = CallRecord("WebhookService/ReplayDelivery", "done", by("alice"), "{}")
    await endpoints.replay_delivery(endpoint_id, under_way.delivery_id, call)
    await outbox.finish(
        [ended(under_way, state, retry_seconds=300 if state is DeliveryState.PENDING else None)], BODIES
    )
    (again,) = await outbox.claim(rooms())
    assert (under_way.delivery_id, 2) == (again.delivery_id, again.number)


# Who created it is told


async def test_who_created_an_endpoint_hears_at_the_others_that_it_was_disabled(
    endpoint_id: str, database: Database, store: DatabaseStore, outbox: DatabaseOutbox
) -> None:
    others = [await add_endpoint(database, event_types=types) for types in ([], ["webhook.disabled"])]
    await add_endpoint(database, event_types=["payment.succeeded"])
    await add_endpoint(database, owner="bob")
    await add_endpoint(database, state="disabled", disabled_because="owner")
    first, *_ = [each for each in await dispatches(outbox, store) if each.endpoint_id == endpoint_id]
    gone = ended(first, DeliveryState.PENDING, disables=DisabledBecause.GONE)
    await outbox.finish([gone], BODIES)
    await outbox.finish([gone], BODIES)
    told = [row for row in await deliveries_of(database) if row.event_type == "webhook.disabled"]
    assert sorted(others) == sorted(row.endpoint_id for row in told)
    (body,) = {row.body for row in told}
    assert {"endpointId": endpoint_id, "disabledBecause": "gone"} == json.loads(body)["data"]
    assert {told[0].event_id} == {row.event_id for row in told} == {json.loads(body)["eventId"]}
    claimed = await outbox.claim(rooms())
    assert sorted(others) == sorted(each.endpoint_id for each in claimed if each.event_id == told[0].event_id)
