"""What administrators may do, over gRPC and REST, on both engines, and what is written down of it."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.audit import calls_of
from support.doors import OF_EVERYBODY, ROUTES, Answer, Door, to_message
from support.orders import Orders
from support.requests import APPROVED, DECLINED, payment, some_id
from support.service import until
from support.stack import Stack

SCOPE = "admin"
ADMIN_RPCS = [
    "ListAllOrders",
    "ForceCancelOrder",
    "UpdateOrderStatus",
    "ListAllWebhookEndpoints",
    "DisableWebhookEndpoint",
    "EnableWebhookEndpoint",
    "GetDashboardStats",
    "ListAuditLogs",
    "GetAuditLog",
]
REASON = "the customer's bank asked for it"


@pytest.fixture(params=["REST", "gRPC"])
def door(request: pytest.FixtureRequest, stack: Stack) -> Door:
    return stack.rest if request.param == "REST" else stack.grpc


@pytest.fixture
def orders(stack: Stack) -> Orders:
    return Orders(stack)


@pytest.fixture
def subject() -> str:
    """An administrator whom no other test knows, so that their chain of calls is this test's."""
    return f"root-{some_id()}"


class Admin:
    """Calls of one administrator."""

    def __init__(self, stack: Stack, door: Door, subject: str) -> None:
        self.stack = stack
        self.door = door
        self.subject = subject

    async def call(self, rpc: str, **request: Any) -> Answer:
        return await self.door.call(rpc, request, token=self.stack.token(self.subject, SCOPE))

    async def good(self, rpc: str, **request: Any) -> dict[str, Any]:
        answer = await self.call(rpc, **request)
        assert ("OK", None) == (answer.code, answer.reason), answer.text
        return answer.body

    async def entries(self, **request: Any) -> list[dict[str, Any]]:
        return list((await self.good("ListAuditLogs", pageSize=100, **request))["data"])


@pytest.fixture
def admin(stack: Stack, door: Door, subject: str) -> Admin:
    return Admin(stack, door, subject)


def request_of(rpc: str, order: str) -> Mapping[str, Any]:
    match rpc:
        case "ForceCancelOrder":
            return {"orderId": order, "reason": REASON}
        case "UpdateOrderStatus":
            return {"orderId": order, "status": "shipped"}
        case "DisableWebhookEndpoint" | "EnableWebhookEndpoint":
            return {"endpointId": some_id(), "reason": REASON}
        case "GetAuditLog":
            return {"entryId": some_id()}
        case _:
            return {}


# Who may


@pytest.mark.parametrize("rpc", ADMIN_RPCS)
async def test_a_user_is_refused_and_that_is_written_down(
    stack: Stack, door: Door, orders: Orders, admin: Admin, rpc: str, subject: str
) -> None:
    order = await orders.in_state("paid")
    user = f"user-{subject}"
    for scope in ("read:orders write:orders", "Admin administrator admin:read"):  # the second within a minute
        answer = await door.call(rpc, dict(request_of(rpc, order)), token=stack.token(user, scope))
        assert ("PERMISSION_DENIED", "SCOPE_MISSING") == (answer.code, answer.reason)
    assert "approved" == (await order_of(stack, order))["status"]
    rows = await calls_of(stack, user)
    assert [(f"AdminService/{OF_EVERYBODY.get(rpc, rpc)}", "refused", "SCOPE_MISSING")] == [
        (row["object_id"], row["outcome"], row["detail"]) for row in rows
    ]


def test_every_method_of_administrators_is_tried() -> None:
    paths = {name for name, (_, path, _) in ROUTES.items() if path.startswith(("/admin", "/audit"))}
    assert set(ADMIN_RPCS) == paths


async def test_the_actor_comes_from_the_token_and_the_request_id_from_the_edge(
    stack: Stack, orders: Orders, subject: str
) -> None:
    order, request_id = await orders.placed(), some_id()
    answer = await stack.rest.send(
        "POST",
        f"/admin/orders/{order}/cancel",
        token=stack.token(subject, SCOPE),
        data=b'{"reason": "because"}',
        headers={
            "x-user-id": "mallory",
            "x-forwarded-for": "1.2.3.4",
            "user-agent": "mallory",
            "x-request-id": request_id,
        },
    )
    assert 200 == answer.http
    newest = (await Admin(stack, stack.grpc, subject).entries(orderId=order))[0]
    assert (subject, "because", "cancelled") == (newest["actor"], newest["detail"], newest["toState"])
    assert answer.headers.get("x-request-id", newest["requestId"]) == newest["requestId"]


# What was read


async def test_every_read_is_written_down(stack: Stack, orders: Orders, admin: Admin) -> None:
    order = await orders.placed()
    entry = (await admin.entries(orderId=order))[0]
    assert entry == await admin.good("GetAuditLog", entryId=entry["id"])
    await orders.placed()
    first = await admin.good("ListAllOrders", status="placed", pageSize=1)
    await admin.good("ListAllOrders", status="placed", pageSize=1, pageToken=first["nextPageToken"])
    await admin.good("GetDashboardStats")
    rows = await calls_of(stack, admin.subject)
    assert [
        ("AdminService/ListAuditLogs", "done", f'{{"orderId": "{order}", "pageSize": 100}}'),
        ("AdminService/GetAuditLog", "done", f'{{"entryId": "{entry["id"]}"}}'),
        *[("AdminService/ListOrders", "done", '{"status": "placed", "pageSize": 1}')] * 2,
        ("AdminService/GetDashboardStats", "done", "{}"),
    ] == [(row["object_id"], row["outcome"], row["detail"]) for row in rows]
    assert all(row["request_id"] for row in rows)


STRING_FIELDS = [
    (rpc, field.json_name)
    for rpc in ADMIN_RPCS
    for field in to_message(rpc, {}).DESCRIPTOR.fields
    if field.type == field.TYPE_STRING
]


@pytest.mark.parametrize(("rpc", "name"), STRING_FIELDS)
async def test_no_card_number_stays_of_what_an_administrator_asks(
    stack: Stack, door: Door, orders: Orders, admin: Admin, rpc: str, name: str
) -> None:
    """The search through everything that the run leaves behind looks for this number too."""
    order = await orders.placed()
    groups = [APPROVED[start : start + 4] for start in range(0, len(APPROVED), 4)]
    for text in (APPROVED, " ".join(groups), "-".join(groups), f"card {APPROVED}"):
        answer = await admin.call(rpc, **{**request_of(rpc, order), name: text})
        assert answer.reason in {"BAD_REQUEST", "INVALID_FIELDS", "NOT_FOUND"}, answer.text
    rows = await calls_of(stack, admin.subject)
    assert {"INVALID_FIELDS", "BAD_REQUEST"} >= {row["detail"] for row in rows}
    assert "placed" == (await order_of(stack, order))["status"]


async def test_an_entry_that_is_not_there_is_not_found(stack: Stack, admin: Admin) -> None:
    answer = await admin.call("GetAuditLog", entryId=some_id())
    assert ("NOT_FOUND", "ENTRY_NOT_FOUND") == (answer.code, answer.reason)
    assert ["refused"] == [row["outcome"] for row in await calls_of(stack, admin.subject)]


async def test_the_entries_of_an_order_tell_what_happened_newest_first(
    stack: Stack, orders: Orders, admin: Admin
) -> None:
    order = await orders.in_state("paid")
    entries = await admin.entries(orderId=order)
    assert [4, 3, 2, 1] == [entry["seq"] for entry in entries]
    assert [("payorder", "approved"), ("payorder", "succeeded"), ("alice", "processing"), ("alice", "placed")] == [
        (entry["actor"], entry["toState"]) for entry in entries
    ]
    assert [entry["hash"] for entry in entries[1:]] == [entry["prevHash"] for entry in entries[:-1]]
    assert 1 == len({entry["requestId"] for entry in entries[:3]})
    first = await admin.good("ListAuditLogs", orderId=order, pageSize=3)
    second = await admin.good("ListAuditLogs", orderId=order, pageSize=3, pageToken=first["nextPageToken"])
    assert entries == first["data"] + second["data"]
    assert "" == second["nextPageToken"]
    elsewhere = await admin.call("ListAuditLogs", pageToken=first["nextPageToken"])
    assert {"pageToken": "invalid_format"} == elsewhere.faults


async def test_the_log_is_listed_by_time(orders: Orders, admin: Admin) -> None:
    order = await orders.placed()
    entry = (await admin.entries(orderId=order))[0]
    after, before = entry["at"], in_seconds(entry["at"], 0.001)
    assert entry in await admin.entries(after=after, before=before)
    assert entry not in await admin.entries(before=after)
    assert [] == await admin.entries(after="2000-01-01T00:00:00Z", before="2001-01-01T00:00:00Z")


# Orders of everybody


async def test_orders_are_found_by_each_filter_and_by_all(orders: Orders, admin: Admin) -> None:
    owner = f"owner-{admin.subject}"
    small = await orders.placed(subject=owner, totalAmount="10.00")
    large = await orders.placed(subject=owner, totalAmount="99.99")
    yen = await orders.placed(subject=owner, totalAmount="1000", currency="JPY")
    await admin.good("ForceCancelOrder", orderId=small, reason=REASON)
    now = datetime.now(UTC)
    for wanted, expected in (
        ({}, [yen, large, small]),
        ({"status": "cancelled"}, [small]),
        ({"status": "placed"}, [yen, large]),
        ({"currency": "JPY"}, [yen]),
        ({"currency": "GBP"}, [large, small]),
        ({"currency": "GBP", "amountMin": "10.01"}, [large]),
        ({"currency": "GBP", "amountMax": "99.98"}, [small]),
        ({"currency": "GBP", "amountMin": "10", "amountMax": "99.99"}, [large, small]),
        ({"createdAfter": told(now - timedelta(minutes=5))}, [yen, large, small]),
        ({"createdAfter": told(now + timedelta(minutes=5))}, []),
        ({"createdBefore": told(now - timedelta(minutes=5))}, []),
        ({"createdBefore": told(now + timedelta(minutes=5)), "status": "placed", "currency": "GBP"}, [large]),
    ):
        page = await admin.good("ListAllOrders", userId=owner, **wanted)
        assert (wanted, expected, "") == (wanted, [order["id"] for order in page["data"]], page["nextPageToken"])
    assert {owner} == {order["userId"] for order in page["data"]}
    everybodys = await admin.good("ListAllOrders", pageSize=3)
    assert [yen, large, small] == [order["id"] for order in everybodys["data"]]


async def test_pages_follow_on_each_other_and_belong_to_their_filter(orders: Orders, admin: Admin) -> None:
    owner = f"owner-{admin.subject}"
    placed = [await orders.placed(subject=owner) for _ in range(5)]
    found: list[str] = []
    token = ""
    for _ in range(3):
        page = await admin.good("ListAllOrders", userId=owner, pageSize=2, **({"pageToken": token} if token else {}))
        found += [order["id"] for order in page["data"]]
        token = page["nextPageToken"] or token
    assert placed[::-1] == found
    other = await admin.call("ListAllOrders", userId=owner, status="placed", pageSize=2, pageToken=token)
    assert {"pageToken": "invalid_format"} == other.faults


BAD = {
    "a status that is none": ({"status": "lost"}, {"status": "not_supported"}),
    "a currency that is none": ({"currency": "ZZZ"}, {"currency": "unknown_currency"}),
    "an amount without a currency": ({"amountMin": "1"}, {"currency": "required"}),
    "an amount of too many decimals": (
        {"amountMin": "1.234", "currency": "GBP"},
        {"amountMin": "too_many_decimals"},
    ),
    "a time that is none": ({"createdAfter": "2026-13-01T00:00:00Z"}, {"createdAfter": "invalid_format"}),
    "a time without a zone": ({"createdBefore": "2026-12-01T00:00:00"}, {"createdBefore": "invalid_format"}),
    "a page of too many": ({"pageSize": 101}, {"pageSize": "out_of_range"}),
    "a token that is none": ({"pageToken": "abc"}, {"pageToken": "invalid_format"}),
    "SQL": ({"pageToken": "' OR 1=1 --"}, {"pageToken": "invalid_format"}),
    "a card number": ({"userId": "4242424242424242"}, {"userId": "card_number_not_allowed"}),
}


@pytest.mark.parametrize(("request_", "faults"), BAD.values(), ids=BAD)
async def test_a_bad_filter_is_refused(admin: Admin, request_: dict[str, Any], faults: dict[str, str]) -> None:
    answer = await admin.call("ListAllOrders", **request_)
    assert ("INVALID_FIELDS", faults) == (answer.reason, answer.faults)


async def test_every_time_can_be_asked_for(admin: Admin) -> None:
    for time in (
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "1969-12-31T23:59:59Z",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
    ):
        for rpc, names in (
            ("ListAllOrders", ("createdAfter", "createdBefore")),
            ("ListAuditLogs", ("after", "before")),
        ):
            for name in names:
                await admin.good(rpc, **{name: time, "pageSize": 1})


async def test_sql_in_a_filter_is_data(admin: Admin) -> None:
    for text in ("' OR '1'='1", "alice'; DROP TABLE orders --", "%", "\N{SNOWMAN}"):
        assert [] == (await admin.good("ListAllOrders", userId=text))["data"]


async def test_another_query_name_is_refused_at_the_edge(stack: Stack, admin: Admin) -> None:
    for name in ("sort", "orderBy", "number", "data"):
        answer = await stack.rest.send(
            "GET", "/admin/orders", token=stack.token(admin.subject, SCOPE), query={name: "x"}
        )
        assert 400 == answer.http


# Cancelling whatever it is


@pytest.mark.parametrize("state", ["placed", "paid", "processing"])
async def test_an_order_in_any_state_is_cancelled(stack: Stack, orders: Orders, admin: Admin, state: str) -> None:
    order = await orders.in_state(state)
    cancelled = await admin.good("ForceCancelOrder", orderId=order, reason=REASON)
    assert (order, "cancelled", "alice") == (cancelled["id"], cancelled["status"], cancelled["userId"])
    assert cancelled == await admin.good("ForceCancelOrder", orderId=order, reason="again")
    entry = next(
        each
        for each in await admin.entries(orderId=order)
        if each["toState"] == "cancelled" and each["kind"] == "order"
    )
    assert (admin.subject, REASON, order) == (entry["actor"], entry["detail"], entry["objectId"])
    refused = await stack.grpc.call("PayOrder", {"orderId": order, "payment": payment()}, token=stack.token())
    assert refused.reason == "ORDER_CANCELLED"


async def test_a_payment_in_flight_is_fenced_before_the_order_is_cancelled(orders: Orders, admin: Admin) -> None:
    order = await orders.in_state("processing")
    await admin.good("ForceCancelOrder", orderId=order, reason=REASON)
    states = [(entry["kind"], entry["toState"]) for entry in await admin.entries(orderId=order)]
    assert [("order", "cancelled"), ("payment", "cancelled")] == states[:2]


async def test_of_a_payment_and_a_forced_cancellation_at_once_no_money_stays(
    stack: Stack, orders: Orders, subject: str
) -> None:
    """Each through any door: whoever is first, the order is cancelled and nobody has paid for it."""
    doors = (stack.rest, stack.grpc, stack.grpc_through_envoy)
    admin = Admin(stack, stack.grpc, subject)

    async def raced(pays: Door, cancels: Door, ahead_seconds: float) -> None:
        order = await orders.placed()
        paying = asyncio.create_task(
            pays.call("PayOrder", {"orderId": order, "payment": payment()}, token=stack.token())
        )
        await asyncio.sleep(ahead_seconds)
        cancel = Admin(stack, cancels, subject)
        cancelled = await until(
            lambda: cancel.call("ForceCancelOrder", orderId=order, reason=REASON),
            lambda answer: answer.reason not in {"BUSY", "PAYMENT_IN_PROGRESS"},
        )
        assert ("OK", "cancelled") == (cancelled.code, cancelled.body["status"])
        paid = await paying
        assert paid.reason in {None, "BUSY", "ORDER_CANCELLED", "PROCESSOR_UNAVAILABLE"}, paid.text

        async def told() -> set[tuple[str, str]]:
            return {(entry["kind"], entry.get("toState", "")) for entry in await admin.entries(orderId=order)}

        def has_ended(states: set[tuple[str, str]]) -> bool:
            return ("payment", "succeeded") not in states or ("refund", "succeeded") in states

        states = await until(told, has_ended)
        assert has_ended(states), states
        assert ("order", "cancelled") in states
        assert (("payment", "succeeded") in states) == (("order", "approved") in states)

    pairs = [(pays, cancels) for pays in doors for cancels in doors]
    for ahead_seconds in (0, 0.002, 0.01):
        await asyncio.gather(*(raced(pays, cancels, ahead_seconds) for pays, cancels in pairs))


async def test_shipped_and_delivered_orders_are_cancelled_and_refunded(orders: Orders, admin: Admin) -> None:
    for states in (["shipped"], ["shipped", "delivered"]):
        order = await orders.in_state("paid")
        for status in states:
            assert status == (await admin.good("UpdateOrderStatus", orderId=order, status=status))["status"]
        assert "cancelled" == (await admin.good("ForceCancelOrder", orderId=order, reason=REASON))["status"]
        assert ("refund", None) in {
            (entry["kind"], entry.get("fromState")) for entry in await admin.entries(orderId=order)
        }


REASONS = {
    "none": ({}, {"reason": "required"}),
    "an empty one": ({"reason": ""}, {"reason": "required"}),
    "one that is too long": ({"reason": "x" * 501}, {"reason": "too_long"}),
    "a card number": ({"reason": "card 4242 4242 4242 4242"}, {"reason": "card_number_not_allowed"}),
    "control characters": ({"reason": "a\nb"}, {"reason": "invalid_format"}),
}


@pytest.mark.parametrize(("request_", "faults"), REASONS.values(), ids=REASONS)
async def test_a_reason_must_be_given(
    stack: Stack, orders: Orders, admin: Admin, request_: dict[str, Any], faults: dict[str, str]
) -> None:
    order = await orders.placed()
    answer = await admin.call("ForceCancelOrder", orderId=order, **request_)
    assert ("INVALID_FIELDS", faults) == (answer.reason, answer.faults)
    assert "placed" == (await order_of(stack, order))["status"]
    assert [("refused", "INVALID_FIELDS")] == [
        (row["outcome"], row["detail"]) for row in await calls_of(stack, admin.subject)
    ]


@pytest.mark.parametrize("rpc", ["DisableWebhookEndpoint", "EnableWebhookEndpoint"])
async def test_a_reason_must_be_given_for_what_is_done_to_a_webhook(admin: Admin, rpc: str) -> None:
    for request, faults in REASONS.values():
        answer = await admin.call(rpc, endpointId=some_id(), **request)
        assert ("INVALID_FIELDS", faults) == (answer.reason, answer.faults)


async def test_the_longest_reason_is_kept(orders: Orders, admin: Admin) -> None:
    order, reason = await orders.placed(), "\N{SNOWMAN}" * 500
    await admin.good("ForceCancelOrder", orderId=order, reason=reason)
    assert reason == (await admin.entries(orderId=order))[0]["detail"]


async def test_an_order_of_nobody_is_not_found(admin: Admin) -> None:
    for rpc in ("ForceCancelOrder", "UpdateOrderStatus"):
        answer = await admin.call(rpc, **request_of(rpc, some_id()))
        assert ("NOT_FOUND", "ORDER_NOT_FOUND") == (answer.code, answer.reason)


@pytest.mark.parametrize("rpc", ["cancel", "status"])
async def test_a_key_gives_the_same_answer_again(stack: Stack, orders: Orders, subject: str, rpc: str) -> None:
    order, key = await orders.in_state("paid"), some_id()
    body = {"cancel": b'{"reason": "because"}', "status": b'{"status": "shipped"}'}[rpc]
    other = {"cancel": b'{"reason": "another"}', "status": b'{"status": "delivered"}'}[rpc]

    async def send(data: bytes) -> Answer:
        token = stack.token(subject, SCOPE)
        path = f"/admin/orders/{order}/{rpc}"
        return await stack.rest.send("POST", path, token=token, data=data, headers={"idempotency-key": key})

    first, again, third = await send(body), await send(body), await send(other)
    assert (200, first.text, "true") == (first.http, again.text, again.headers.get("idempotent-replayed"))
    assert (422, "IDEMPOTENCY_KEY_REUSED") == (third.http, third.reason)


# Fulfilment


async def in_status(orders: Orders, admin: Admin, status: str) -> str:
    order = await orders.in_state("placed" if status == "placed" else "paid")
    for step in {"shipped": ["shipped"], "delivered": ["shipped", "delivered"]}.get(status, []):
        await admin.good("UpdateOrderStatus", orderId=order, status=step)
    if status == "cancelled":
        await admin.good("ForceCancelOrder", orderId=order, reason=REASON)
    return order


@pytest.mark.parametrize("to_status", ["shipped", "delivered"])
@pytest.mark.parametrize("from_status", ["placed", "approved", "shipped", "delivered", "cancelled"])
async def test_only_an_approved_order_is_shipped_and_only_a_shipped_one_delivered(
    stack: Stack, orders: Orders, admin: Admin, from_status: str, to_status: str
) -> None:
    order = await in_status(orders, admin, from_status)
    answer = await admin.call("UpdateOrderStatus", orderId=order, status=to_status)
    if (from_status, to_status) in {("approved", "shipped"), ("shipped", "delivered")}:
        assert ("OK", to_status) == (answer.code, answer.body["status"])
        return
    assert ("FAILED_PRECONDITION", "ILLEGAL_STATUS_CHANGE") == (answer.code, answer.reason)
    assert from_status == (await order_of(stack, order))["status"]
    if admin.door is stack.grpc:
        assert {"status": from_status} == answer.info
    else:
        assert 409 == answer.http


async def test_no_other_status_can_be_set(stack: Stack, orders: Orders, admin: Admin) -> None:
    order = await orders.placed()
    for status in ("approved", "cancelled", "placed", "SHIPPED"):
        answer = await admin.call("UpdateOrderStatus", orderId=order, status=status)
        assert {"status": "not_supported"} == answer.faults
    assert "placed" == (await order_of(stack, order))["status"]


# Numbers


async def test_the_dashboard_counts_what_happens(stack: Stack, orders: Orders, admin: Admin) -> None:
    before = await admin.good("GetDashboardStats")
    await orders.in_state("paid")
    placed = await orders.placed(totalAmount="10.00")
    declined = {"orderId": placed, "payment": payment(amount="10.00", number=DECLINED)}
    assert "PAYMENT_DECLINED" == (await stack.grpc.call("PayOrder", declined, token=stack.token())).reason
    returned = await orders.in_state("paid")
    await admin.good("ForceCancelOrder", orderId=returned, reason=REASON)
    after = await admin.good("GetDashboardStats")

    def more(period: str, kind: str, state: str) -> int:
        return int(after[period][kind].get(state, 0)) - int(before[period][kind].get(state, 0))

    assert {"approved": 1, "placed": 1, "cancelled": 1, "shipped": 0, "delivered": 0} == {
        state: more("total", "orders", state) for state in ("approved", "placed", "cancelled", "shipped", "delivered")
    }
    for period in ("last24Hours", "last30Days"):
        assert (3, 2, 1) == tuple(more(period, "orders", state) for state in ("placed", "approved", "cancelled"))
        assert (2, 1) == tuple(more(period, "payments", state) for state in ("succeeded", "failed"))
        assert 1 == more(period, "declineCodes", "card_declined")
        taken = [money(each, "GBP", "taken") for each in (before[period], after[period])]
        assert "99.98" == f"{taken[1] - taken[0]:.2f}"
    assert 0 < after["total"]["successRate"] < 1
    assert after["asOf"] > before["asOf"]


def money(period: Mapping[str, Any], currency: str, name: str) -> float:
    return next((float(each[name]) for each in period["totals"] if each["currency"] == currency), 0.0)


def told(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def in_seconds(time: str, seconds: float) -> str:
    return told(datetime.fromisoformat(time) + timedelta(seconds=seconds))


async def order_of(stack: Stack, order: str) -> dict[str, Any]:
    answer = await stack.grpc.call("GetOrder", {"orderId": order}, token=stack.token())
    return dict(answer.body)
