"""The documented request gets the documented answer, through both doors, on both engines."""

from support.doors import Door
from support.requests import APPROVED, DECLINED, ORDER, bank_payment, payment
from support.stack import Stack

CREATED_KEYS = {"id", "amount", "currency", "source", "status", "createdAt"}


async def new_order(stack: Stack, door: Door, total: str = "49.99") -> str:
    created = await door.call("CreateOrder", ORDER | {"totalAmount": total}, token=stack.token())
    assert "OK" == created.code
    assert "placed" == created.body["status"]
    return str(created.body["id"])


async def test_the_documented_card_pays_the_order(stack: Stack, door: Door) -> None:
    order = await new_order(stack, door)
    paid = await door.call("PayOrder", {"orderId": order, "payment": payment()}, token=stack.token())
    assert paid.http in (201, None)
    assert CREATED_KEYS == set(paid.body)
    assert ("49.99", "GBP", "succeeded") == (paid.body["amount"], paid.body["currency"], paid.body["status"])
    assert {
        "object": "card",
        "name": "J. Doe",
        "number": "************4242",
        "expMonth": 12,
        "expYear": 2025,
        "addressCountry": "gb",
        "addressPostCode": "N12 9XX",
    } == paid.body["source"]
    assert paid.headers.get("location") == (f"/payments/{paid.body['id']}" if paid.http else None)
    approved = await door.call("GetOrder", {"orderId": order}, token=stack.token())
    assert ("approved", paid.body["id"]) == (approved.body["status"], approved.body["latestPaymentId"])


async def test_the_documented_bank_account_pays_the_order(stack: Stack, door: Door) -> None:
    order = await new_order(stack, door, "100.50")
    paid = await door.call("PayOrder", {"orderId": order, "payment": bank_payment("100.50")}, token=stack.token())
    assert "succeeded" == paid.body["status"]
    assert {
        "object": "bank_account",
        "name": "J. Doe",
        "number": "*********2345",
        "sortCode": "000123",
        "accountType": "individual",
        "bankName": "Starling Bank",
        "country": "gb",
    } == paid.body["source"]


async def test_a_paid_order_is_not_paid_again(stack: Stack, door: Door) -> None:
    order = await new_order(stack, door)
    request = {"orderId": order, "payment": payment()}
    paid = await door.call("PayOrder", request, token=stack.token())
    again = await door.call("PayOrder", request, token=stack.token())
    assert (409, "ORDER_ALREADY_PAID", paid.body["id"]) == (again.http, again.reason, again.body["paymentId"])


async def test_a_declined_order_stays_placed_and_can_be_paid(stack: Stack, door: Door) -> None:
    order = await new_order(stack, door)
    declined = await door.call("PayOrder", {"orderId": order, "payment": payment(number=DECLINED)}, token=stack.token())
    assert (422, "PAYMENT_DECLINED") == (declined.http, declined.reason)
    assert {"source": "card_declined"} == declined.faults
    still = await door.call("GetOrder", {"orderId": order}, token=stack.token())
    assert "placed" == still.body["status"]
    paid = await door.call("PayOrder", {"orderId": order, "payment": payment(number=APPROVED)}, token=stack.token())
    assert "succeeded" == paid.body["status"]
    attempts = await door.call("ListPayments", {"orderId": order}, token=stack.token())
    assert ["succeeded", "failed"] == [attempt["status"] for attempt in attempts.body["data"]]
