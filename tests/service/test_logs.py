"""What a service writes down of its calls, and what never stands there; with a processor that misbehaves, too."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from uuid import uuid4

import grpc
import pytest

from support.doors import to_message
from support.requests import APPROVED, CARD, payment
from support.service import Service, install_processor, serving_process, until

# An outside package's processor. What it does is said by the card holder's name; what it raises quotes all it knows.
ODD = """
import asyncio

from payorder.domain.outcome import Approved, Failed


class Odd:
    def __init__(self):
        self._charged = set()

    async def charge(self, key, amount, source):
        if source.name == "Raises":
            try:
                int("card " + source.number.reveal())
            except ValueError as error:
                raise RuntimeError(f"cannot charge {source.number.reveal()} {source.name}") from error
        if source.name == "Raises a timeout":
            raise TimeoutError(source.number.reveal())
        if source.name == "Answers nonsense":
            return source.number.reveal()
        if source.name == "Charges and is silent":
            self._charged.add(key)
        if source.name.endswith("silent"):
            await asyncio.Event().wait()
        return Approved(f"odd_{key}")

    async def cancel(self, key, amount):
        return Approved(f"odd_{key}") if key in self._charged else Failed("cancelled")

    async def refund(self, key, reference, amount):
        return Approved(f"odd_{key}")

    async def charges(self, since):
        return []

    async def close(self):
        pass


def from_options(options):
    return Odd()
"""

SETTINGS = {
    "processor": "odd",
    # Long enough for a caller to leave before there is an answer.
    "charge_timeout_seconds": "1",
    "reconcile_after_seconds": "1.3",
    "reconcile_every_seconds": "0.1",
    "log_level": "DEBUG",
}
CALL = {"rpc", "result", "subject", "request_id", "duration_ms", "event", "level", "timestamp"}


@pytest.fixture(scope="module")
async def odd(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A service in a process of its own, with a processor out of a package that is not ours."""
    folder = tmp_path_factory.mktemp("odd")
    packages = install_processor(folder / "packages", "odd", ODD)
    url = f"sqlite:///{folder / 'payorder.db'}"
    async with serving_process(folder, url, python_path=packages, **SETTINGS) as service:
        yield service


async def test_a_processor_of_another_package_is_found_by_its_name(odd: Service) -> None:
    order = await odd.new_order()
    paid = await odd.grpc.call("PayOrder", {"orderId": order, "payment": payment()}, token=odd.token())
    assert ("OK", "succeeded") == (paid.code, paid.body["status"])


@pytest.mark.parametrize("name", ["Raises", "Answers nonsense"])
async def test_a_fault_of_a_processor_is_told_to_nobody(odd: Service, name: str) -> None:
    order = await odd.new_order()
    answer = await odd.grpc.call("PayOrder", {"orderId": order, "payment": payment(name=name)}, token=odd.token())
    assert ("INTERNAL", "INTERNAL", 500) == (answer.code, answer.reason, answer.http)
    assert [] == [
        secret for secret in (APPROVED, name, "RuntimeError", "Traceback", "_processor") if secret in answer.text
    ]
    # Nobody knows whether it charged: the payment is fenced, and then the order can be paid.
    ended = await until(
        lambda: odd.read("GetLatestPayment", orderId=order), lambda paid: paid["status"] != "processing"
    )
    assert "failed" == ended["status"]
    paid = await odd.grpc.call("PayOrder", {"orderId": order, "payment": payment()}, token=odd.token())
    assert "succeeded" == paid.body["status"]


@pytest.mark.parametrize(
    ("name", "end"), [("Is silent", "failed"), ("Charges and is silent", "succeeded"), ("Raises a timeout", "failed")]
)
async def test_a_processor_that_is_silent_is_asked_how_it_ended(odd: Service, name: str, end: str) -> None:
    order = await odd.new_order()
    answer = await odd.grpc.call("PayOrder", {"orderId": order, "payment": payment(name=name)}, token=odd.token())
    assert ("OK", "processing") == (answer.code, answer.body["status"])
    ended = await until(
        lambda: odd.read("GetLatestPayment", orderId=order), lambda paid: paid["status"] != "processing"
    )
    assert end == ended["status"]
    assert {"failed": "placed", "succeeded": "approved"}[end] == (await odd.read("GetOrder", orderId=order))["status"]


async def lines_of(service: Service, request_id: str) -> list[dict[str, object]]:
    """The lines with that id, the call's own among them."""

    async def read() -> list[dict[str, object]]:
        return [line for line in service.log_lines() if line.get("request_id") == request_id]

    return await until(read, lambda lines: any(line["event"] == "call" for line in lines))


async def call(service: Service, rpc: str, body: bytes, *, token: str | None, request_id: str) -> None:
    metadata = [("x-request-id", request_id)]
    if token is not None:
        metadata.append(("authorization", f"Bearer {token}"))
    await service.code_of(f"/payments.v1.{rpc}", body, metadata=tuple(metadata))


CALLS = {
    "OK": ("OrderService/CreateOrder", {"totalAmount": "49.99", "currency": "GBP"}, "alice"),
    "INVALID_FIELDS": ("OrderService/CreateOrder", {"totalAmount": "-1", "currency": "GBP"}, "alice"),
    "ORDER_NOT_FOUND": ("OrderService/GetOrder", {"orderId": "018f0000-0000-7000-8000-000000000000"}, "alice"),
    "BAD_REQUEST": ("OrderService/GetOrder", {"orderId": APPROVED}, "alice"),
}


@pytest.mark.parametrize("result", CALLS)
async def test_a_call_is_one_line_of_the_documented_fields(odd: Service, result: str) -> None:
    rpc, request, subject = CALLS[result]
    request_id = str(uuid4())
    body = to_message(rpc.partition("/")[2], request).SerializeToString()
    await call(odd, rpc, body, token=odd.token(subject), request_id=request_id)
    (line,) = await lines_of(odd, request_id)
    assert CALL == set(line)
    assert ("call", "info", rpc, result, subject) == (
        line["event"],
        line["level"],
        line["rpc"],
        line["result"],
        line["subject"],
    )


async def test_a_refused_token_has_its_cause_in_the_log_alone(odd: Service) -> None:
    request_id = str(uuid4())
    await call(odd, "OrderService/ListOrders", b"", token="secret.secret.secret", request_id=request_id)
    refused, answered = await lines_of(odd, request_id)
    assert {"cause", "request_id", "event", "level", "timestamp"} == set(refused)
    assert ("token refused", None, "UNAUTHENTICATED") == (refused["event"], answered["subject"], answered["result"])


async def test_a_call_that_was_cut_off_has_its_line(odd: Service) -> None:
    request_id = str(uuid4())
    order = await odd.new_order()
    request = to_message("PayOrder", {"orderId": order, "payment": payment(name="Is silent")}).SerializeToString()
    pay = odd.grpc.channel.unary_unary("/payments.v1.PaymentService/PayOrder")
    paying = pay(request, metadata=(*odd.metadata, ("x-request-id", request_id)), timeout=20)
    await until(lambda: odd.read("ListPayments", orderId=order), lambda page: bool(page["data"]))
    paying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await paying
    (line,) = await lines_of(odd, request_id)
    assert "CANCELLED" == line["result"]


@pytest.mark.parametrize("request_id", ["", "4242424242424242", "x" * 300, "' OR 1=1", "%0a{}"])
async def test_a_request_id_that_is_no_uuid_is_not_written_down(odd: Service, request_id: str) -> None:
    await call(odd, "OrderService/ListOrders", b"", token=None, request_id=request_id)
    await odd.new_order()
    text = (odd.data / "log" / "service.log").read_text()
    assert not request_id or request_id not in text


async def test_a_subject_cannot_forge_a_line(odd: Service) -> None:
    subject = 'alice", "result": "OK" \N{SNOWMAN}' + "x" * 200
    request_id = str(uuid4())
    await call(odd, "OrderService/ListOrders", b"", token=odd.token(subject), request_id=request_id)
    (line,) = await lines_of(odd, request_id)
    assert (subject, "OK") == (line["subject"], line["result"])


async def test_the_log_is_printable_json_lines_without_a_secret(odd: Service) -> None:
    """Last in this file: it looks at what all the others have left behind."""
    order = await odd.new_order()
    secret = {"orderId": order, "payment": payment(name="Raises")}
    with pytest.raises(grpc.aio.AioRpcError):
        await odd.grpc.channel.unary_unary("/payments.v1.PaymentService/PayOrder")(
            to_message("PayOrder", secret).SerializeToString(), metadata=odd.metadata, timeout=20
        )
    text = (odd.data / "log" / "service.log").read_text(encoding="utf-8")
    printed = text.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in printed)
    lines = [json.loads(line) for line in printed]
    assert set() == {type(line) for line in lines} - {dict}
    assert [] == [line for line in lines if line["level"] not in {"info", "error"}]
    without_keys = {"audit log not sealed", "receipts signed with a key of this process"}
    assert without_keys | {"serving", "call", "change", "fault", "token refused"} == {line["event"] for line in lines}
    assert {"RuntimeError", "ValueError"} <= {each["type"] for line in lines for each in line.get("faults", [])}
    secrets = [APPROVED, odd.token()[:40], "eyJ", "Raises", CARD["addressLine1"], CARD["addressCity"], "cannot charge"]
    assert [] == [each for each in secrets if each in text]
    assert not re.search(r"(?<![0-9a-f-])[0-9]{13,19}(?![0-9a-f-])", text)


def test_the_database_holds_no_card_number(odd: Service) -> None:
    for path in odd.data.glob("payorder.db*"):
        assert APPROVED.encode() not in path.read_bytes()
