"""What a payment is when somebody is slow, leaves, or comes a hundredfold: on each engine, over real gRPC."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import grpc
import pytest

from payments.v1.payment_service_pb2_grpc import PaymentServiceStub
from support.doors import Answer, GrpcDoor, to_message
from support.requests import OUTCOME_UNKNOWN, payment
from support.service import Service, serving, serving_process, until

from .conftest import Serve


async def pay(service: Service, order: str, **card: str) -> Answer:
    return await service.grpc.call("PayOrder", {"orderId": order, "payment": payment(**card)}, token=service.token())


async def settled(service: Service, order: str) -> dict[str, object]:
    """The order's newest payment, once it is no longer open."""
    return await until(
        lambda: service.read("GetLatestPayment", orderId=order), lambda paid: paid["status"] != "processing"
    )


async def test_a_slow_payment_is_processing_at_first_and_settles_by_itself(serve: Serve) -> None:
    # So slow that the calls in between are made before it ends.
    async with serve(processor_options={"latency_seconds": "3"}, answer_within_seconds=0.1) as service:
        order = await service.new_order()
        answer = await pay(service, order)
        assert ("OK", "processing", "202") == (answer.code, answer.body["status"], answer.headers["x-http-status"])
        again = await pay(service, order)
        assert ("ABORTED", "PAYMENT_IN_PROGRESS", answer.body["id"]) == (
            again.code,
            again.reason,
            again.body["paymentId"],
        )
        cancelled = await service.grpc.call("CancelOrder", {"orderId": order}, token=service.token())
        assert "PAYMENT_IN_PROGRESS" == cancelled.reason
        assert answer.body | {"status": "succeeded"} == await settled(service, order)
        assert "approved" == (await service.read("GetOrder", orderId=order))["status"]


async def test_a_fast_payment_is_created_and_not_accepted(serve: Serve) -> None:
    async with serve() as service:
        answer = await pay(service, await service.new_order())
        assert ("succeeded", False) == (answer.body["status"], "x-http-status" in answer.headers)


async def test_a_processor_that_does_not_answer_leaves_the_payment_processing(serve: Serve) -> None:
    slow = {
        "processor_options": {"latency_seconds": "0.5"},
        "charge_timeout_seconds": 0.1,
        "reconcile_after_seconds": 0.2,
        "reconcile_every_seconds": 0.1,
    }
    async with serve(**slow) as service:
        order = await service.new_order()
        answer = await pay(service, order)
        assert ("OK", "processing", "202") == (answer.code, answer.body["status"], answer.headers["x-http-status"])
        # Asked again and again, the processor stays silent: that is no reason to say that nothing was charged.
        seen = await until(lambda: service.read("GetPayment", paymentId=answer.body["id"]), lambda _: False, tries=40)
        assert "processing" == seen["status"]
        assert "PAYMENT_IN_PROGRESS" == (await pay(service, order)).reason


async def test_an_outcome_nobody_knows_is_fenced_and_the_order_can_be_paid(serve: Serve) -> None:
    async with serve(reconcile_every_seconds=0.1) as service:
        order = await service.new_order()
        assert "processing" == (await pay(service, order, number=OUTCOME_UNKNOWN)).body["status"]
        assert "failed" == (await settled(service, order))["status"]
        assert "succeeded" == (await pay(service, order)).body["status"]


async def test_a_deadline_that_passes_in_mid_charge_does_not_stop_the_payment(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'payorder.db'}"
    async with serving(tmp_path, url, processor_options={"latency_seconds": "5.5"}) as service:
        order = await service.new_order()
        request = {"orderId": order, "payment": payment()}
        # When the call arrives there must be three seconds left.
        answer = await service.grpc.call("PayOrder", request, token=service.token(), timeout_seconds=5)
        assert ("OK", "processing") == (answer.code, answer.body["status"])
        assert "succeeded" == (await settled(service, order))["status"]


@pytest.mark.parametrize("left", [0.001, 0.5, 2.5])
async def test_a_deadline_too_short_for_a_charge_claims_nothing(service: Service, left: float) -> None:
    order = await service.new_order()
    request = {"orderId": order, "payment": payment()}
    answer = await service.grpc.call("PayOrder", request, token=service.token(), timeout_seconds=left)
    assert "DEADLINE_EXCEEDED" == answer.code
    assert [] == (await service.read("ListPayments", orderId=order))["data"]


async def test_callers_who_hang_up_at_any_moment_change_nothing(serve: Serve) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)  # noqa: S311 - not for secrets
    async with serve(processor_options={"latency_seconds": "0.05"}) as service:
        orders = [await service.new_order() for _ in range(100)]
        stub = PaymentServiceStub(service.grpc.channel)

        async def hang_up(order: str, after_seconds: float) -> None:
            request = to_message("PayOrder", {"orderId": order, "payment": payment()})
            call = stub.PayOrder(request, metadata=service.metadata, timeout=20)
            await asyncio.sleep(after_seconds)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

        await asyncio.gather(*(hang_up(order, moments.uniform(0, 0.045)) for order in orders))
        ends = Counter([await end_of(service, order) for order in orders])
    assert set() == ends.keys() - {("placed", ()), ("approved", ("succeeded",))}
    print(f"ends {dict(ends)}")


async def end_of(service: Service, order: str) -> tuple[str, tuple[str, ...]]:
    """The states of an order and its payments, once nothing of it is open."""

    async def read() -> tuple[str, tuple[str, ...]]:
        payments = (await service.read("ListPayments", orderId=order))["data"]
        return (await service.read("GetOrder", orderId=order))["status"], tuple(each["status"] for each in payments)

    return await until(read, lambda end: "processing" not in end[1])


async def test_a_caller_who_hangs_up_after_the_claim_has_paid(serve: Serve) -> None:
    async with serve(processor_options={"latency_seconds": "0.5"}) as service:
        order = await service.new_order()
        request = to_message("PayOrder", {"orderId": order, "payment": payment()})
        call = PaymentServiceStub(service.grpc.channel).PayOrder(request, metadata=service.metadata, timeout=20)
        await until(lambda: service.read("ListPayments", orderId=order), lambda page: bool(page["data"]))
        call.cancel()
        assert "succeeded" == (await settled(service, order))["status"]
        assert "approved" == (await service.read("GetOrder", orderId=order))["status"]


@pytest.mark.parametrize("latency_seconds", ["0", "0.05"])
async def test_of_a_hundred_payments_of_one_order_one_succeeds(serve: Serve, latency_seconds: str) -> None:
    async with serve(
        processor_options={"latency_seconds": latency_seconds}, database_pool_timeout_seconds=5
    ) as service:
        order = await service.new_order()
        answers = await asyncio.gather(*(pay(service, order) for _ in range(100)))
        codes = Counter(answer.code for answer in answers)
        assert (1, 99) == (codes["OK"], codes["ABORTED"] + codes["FAILED_PRECONDITION"])
        reasons = {answer.reason for answer in answers if answer.code != "OK"}
        assert set() == reasons - {"PAYMENT_IN_PROGRESS", "ORDER_ALREADY_PAID"}
        (only,) = (await service.read("ListPayments", orderId=order))["data"]
        assert "succeeded" == only["status"]


async def test_a_payment_that_runs_at_the_stop_is_finished(serve: Serve) -> None:
    async with serve(processor_options={"latency_seconds": "0.5"}) as service:
        order = await service.new_order()
        paying = asyncio.create_task(pay(service, order))
        await until(lambda: service.read("ListPayments", orderId=order), lambda page: bool(page["data"]))
        # The channel closes with the block: the call is cut off, and the payment is not.
    await asyncio.gather(paying, return_exceptions=True)
    async with serve() as service:
        assert "succeeded" == (await service.read("GetLatestPayment", orderId=order))["status"]
        assert "approved" == (await service.read("GetOrder", orderId=order))["status"]


async def test_a_payment_that_was_answered_with_processing_is_finished_before_the_stop(serve: Serve) -> None:
    async with serve(processor_options={"latency_seconds": "0.5"}, answer_within_seconds=0.1) as service:
        order = await service.new_order()
        assert "processing" == (await pay(service, order)).body["status"]
    async with serve() as service:
        assert "succeeded" == (await service.read("GetLatestPayment", orderId=order))["status"]


async def test_sigterm_lets_a_call_in_flight_be_answered(tmp_path: Path) -> None:
    options = {"processor_options": '{"latency_seconds": "1"}'}
    async with serving_process(tmp_path, f"sqlite:///{tmp_path / 'payorder.db'}", **options) as service:
        order = await service.new_order()
        paying = asyncio.create_task(pay(service, order))
        await until(lambda: service.read("ListPayments", orderId=order), lambda page: bool(page["data"]))
        stopping = asyncio.create_task(service.stop())
        answer = await paying
        await stopping
    assert ("OK", "succeeded") == (answer.code, answer.body["status"])
    assert ["serving", "stopped"] == [line["event"] for line in service.log_lines() if line["event"] in LIFE]


LIFE = {"serving", "stopped"}


async def test_a_new_call_is_refused_while_the_service_drains(tmp_path: Path) -> None:
    options = {"processor_options": '{"latency_seconds": "1"}'}
    async with serving_process(tmp_path, f"sqlite:///{tmp_path / 'payorder.db'}", **options) as service:
        order, other = await service.new_order(), await service.new_order()
        paying = asyncio.create_task(pay(service, order))
        await until(lambda: service.read("ListPayments", orderId=order), lambda page: bool(page["data"]))
        stopping = asyncio.create_task(service.stop())
        assert await until(lambda: drains(service), bool)
        async with grpc.aio.insecure_channel(service.address) as channel:
            late = PaymentServiceStub(channel).PayOrder(
                to_message("PayOrder", {"orderId": other, "payment": payment()}), metadata=service.metadata, timeout=20
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await late
        assert "OK" == (await paying).code
        await stopping
    assert grpc.StatusCode.UNAVAILABLE == refused.value.code()


async def drains(service: Service) -> bool:
    """Whether it has heard of its end: who comes anew is not even answered."""
    async with grpc.aio.insecure_channel(service.address) as channel:
        return "UNAVAILABLE" == (await GrpcDoor(channel).call("ListOrders", {}, token=service.token())).code
