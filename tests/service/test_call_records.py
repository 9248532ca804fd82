"""What is written down of refusals: always something, and never more than a caller can be worth."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from payments.v1.admin_service_pb2 import ForceCancelOrderRequest
from payorder.domain.errors import (
    Busy,
    InvalidFields,
    MalformedRequest,
    OrderNotFound,
    RateLimited,
    Refusal,
    ScopeMissing,
    SubjectDisabled,
)
from payorder.domain.origin import Origin
from payorder.edge.call_records import CallRecords
from payorder.edge.methods import METHODS
from payorder.ports.audit import CallRecord
from support.audit import calls_of
from support.doors import Door
from support.orders import Orders
from support.requests import payment, some_id
from support.stack import Stack

PAY = METHODS["/payments.v1.PaymentService/PayOrder"]
FORCE_CANCEL = METHODS["/payments.v1.AdminService/ForceCancelOrder"]
MALLORY = Origin("mallory", "a request")
ASKED = ForceCancelOrderRequest(order_id="0198b76d-0000-7000-8000-000000000000", reason="4242 4242 4242 4242")
NO_SCOPE, LIMITED = ScopeMissing("admin"), RateLimited("owner", 60)


@dataclass(slots=True)
class Records:
    """An audit log in memory, and the time as the test says."""

    written: list[CallRecord] = field(default_factory=list)
    seconds: float = 1000.0
    is_away: bool = False

    def now(self) -> datetime:
        return datetime.now(UTC)

    def uptime_seconds(self) -> float:
        return self.seconds

    async def write(self, call: CallRecord) -> None:
        if self.is_away:
            raise Busy
        self.written.append(call)

    def details(self) -> list[str | None]:
        return [call.detail for call in self.written]


@pytest.fixture
def log() -> Records:
    return Records()


@pytest.fixture
def records(log: Records) -> CallRecords:
    return CallRecords(log.write, log)


@pytest.mark.parametrize(
    ("refusal", "detail"),
    [(NO_SCOPE, "SCOPE_MISSING"), (SubjectDisabled(), "SUBJECT_DISABLED"), (LIMITED, "RATE_LIMITED: owner")],
)
async def test_of_a_thousand_refusals_in_a_minute_one_is_told(
    log: Records, records: CallRecords, refusal: Refusal, detail: str
) -> None:
    for _ in range(1000):
        await records.add_refusal(PAY, MALLORY, refusal, ASKED)
        log.seconds += 0.059
    assert [CallRecord("PaymentService/PayOrder", "refused", MALLORY, detail)] == log.written


async def test_the_next_entry_says_how_many_there_were(log: Records, records: CallRecords) -> None:
    for _ in range(58):
        await records.add_refusal(FORCE_CANCEL, MALLORY, NO_SCOPE, ASKED)
    log.seconds += 60
    for _ in range(2):
        await records.add_refusal(FORCE_CANCEL, MALLORY, NO_SCOPE, ASKED)
    log.seconds += 3600
    await records.add_refusal(FORCE_CANCEL, MALLORY, NO_SCOPE, ASKED)
    more = "SCOPE_MISSING, and {} more since the entry before"
    assert ["SCOPE_MISSING", more.format(57), more.format(1)] == log.details()


async def test_one_caller_method_or_cause_hides_no_other(log: Records, records: CallRecords) -> None:
    for origin in (MALLORY, Origin("eve", "another")):
        for method in (PAY, FORCE_CANCEL):
            for refusal in (NO_SCOPE, LIMITED, RateLimited("source", 60)):
                await records.add_refusal(method, origin, refusal, ASKED)
    assert 12 == len(log.written)


async def test_what_could_not_be_told_is_told_by_the_next(log: Records, records: CallRecords) -> None:
    await records.add_refusal(PAY, MALLORY, LIMITED, ASKED)
    await records.add_refusal(PAY, MALLORY, LIMITED, ASKED)
    log.seconds += 60
    log.is_away = True
    with pytest.raises(Busy):
        await records.add_refusal(PAY, MALLORY, LIMITED, ASKED)
    log.is_away = False
    await records.add_refusal(PAY, MALLORY, LIMITED, ASKED)
    assert ["RATE_LIMITED: owner", "RATE_LIMITED: owner, and 1 more since the entry before"] == log.details()


async def test_an_administrator_is_told_of_every_time_and_others_not_of_mistakes(
    log: Records, records: CallRecords
) -> None:
    for _ in range(2):
        await records.add_refusal(FORCE_CANCEL, MALLORY, OrderNotFound(), ASKED)
        await records.add_refusal(PAY, MALLORY, OrderNotFound(), ASKED)
    told = 'ORDER_NOT_FOUND {"orderId": "0198b76d-0000-7000-8000-000000000000"}'
    assert [("AdminService/ForceCancelOrder", told)] * 2 == [(call.method, call.detail) for call in log.written]


@pytest.mark.parametrize("refusal", [InvalidFields([]), MalformedRequest("bad")], ids=["fields", "form"])
async def test_of_a_request_that_is_not_valid_nothing_is_told(
    log: Records, records: CallRecords, refusal: Refusal
) -> None:
    await records.add_refusal(FORCE_CANCEL, MALLORY, refusal, ASKED)
    assert [False] == ["0198b76d" in (detail or "") for detail in log.details()]


@pytest.mark.parametrize("name", ["rest", "grpc", "grpc_through_envoy"])
async def test_who_may_not_pay_is_written_down_through_every_door(stack: Stack, name: str) -> None:
    """A19, and B8 for those who are no administrators."""
    door: Door = getattr(stack, name)
    reader = f"reader-{some_id()}"
    request = {"orderId": await Orders(stack).placed(), "payment": payment()}
    for _ in range(3):
        answer = await door.call("PayOrder", request, token=stack.token(reader, "read:orders"))
        assert ("PERMISSION_DENIED", 403, "SCOPE_MISSING") == (answer.code, answer.http, answer.reason)
    rows = await calls_of(stack, reader)
    assert [("PaymentService/PayOrder", "refused", "SCOPE_MISSING", reader)] == [
        (row["object_id"], row["outcome"], row["detail"], row["actor"]) for row in rows
    ]
