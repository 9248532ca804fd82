"""Serves PayOrder and knows only one way through it. `python -m bench.floor '{"listen": …}'`."""

import asyncio
import json
import signal
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import uvloop

from bench.floor.statements import CLAIM, SETTLE
from payments.v1.payment_pb2 import OrderPayment
from payments.v1.payment_service_pb2 import PayOrderRequest
from payments.v1.source_pb2 import MaskedSource, PaymentSource
from payorder.adapters.system import SystemClock, new_id
from payorder.domain.origin import Origin
from payorder.domain.outcome import Approved
from payorder.domain.payment import Payment
from payorder.domain.states import PaymentStatus
from payorder.edge.replies import to_payment_reply
from payorder.edge.translate import to_pay_order_command
from payorder.edge.validation import validate
from payorder.observability import logging
from payorder.observability.logging import CallLog
from payorder.workflows.pay_order import PayOrderCommand

_POLL_AFTER_MS = 25_000

_clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Options:
    """`owner` stands for the caller, whom nobody asks for; `obeys_rules`: whether requests are checked at all."""

    listen: str
    database_url: str
    owner: str
    latency_seconds: float
    pool_size: int
    obeys_rules: bool


class Floor:
    def __init__(self, options: Options, pool: Any) -> None:
        self._options = options
        self._pool = pool
        self._log = CallLog()

    async def pay_order(self, request: PayOrderRequest, _context: object) -> bytes:
        payment_id, at = new_id(), time.time_ns() // 1_000_000
        source = _masked(request.payment.source)
        amount_minor = int(Decimal(request.payment.amount) * 100)
        await self._write(
            CLAIM,
            *(payment_id, request.order_id, self._options.owner, amount_minor, request.payment.currency),
            *(_to_json(source), source.number[-4:], at, _POLL_AFTER_MS),
        )
        await asyncio.sleep(self._options.latency_seconds)  # the charge
        reply = _reply(payment_id, request, source, at)
        settled_at = time.time_ns() // 1_000_000
        await self._write(
            SETTLE, payment_id, request.order_id, f"sandbox_{payment_id}", amount_minor, reply, settled_at
        )
        return reply

    async def pay_order_by_the_rules(self, request: PayOrderRequest, _context: object) -> bytes:
        """The same rows, and by the service's own functions what a caller may count on: rules, masking, log lines."""
        began = time.perf_counter()
        validate(request)
        command = to_pay_order_command(request, Origin(self._options.owner), None, answer_within_seconds=0)
        payment = _new_payment(command)
        amount_minor, currency = payment.amount.amount_minor, payment.amount.currency.code
        source = json.dumps(payment.source.given(), separators=(",", ":"))
        at = int(payment.created_at.timestamp() * 1000)
        await self._write(
            CLAIM,
            *(payment.id, payment.order_id, self._options.owner, amount_minor, currency),
            *(source, payment.source.number[-4:], at, _POLL_AFTER_MS),
        )
        self._log.change("payment.processing", payment.id)
        await asyncio.sleep(self._options.latency_seconds)  # the charge
        settled = payment.after(Approved(f"sandbox_{payment.id}"))
        reply = to_payment_reply(settled).body
        await self._write(SETTLE, payment.id, payment.order_id, settled.reference, amount_minor, reply, at)
        self._log.change("payment.succeeded", payment.id)
        self._log.call(
            rpc="PaymentService/PayOrder",
            result="OK",
            subject=self._options.owner,
            request_id=str(uuid4()),
            duration_seconds=time.perf_counter() - began,
        )
        return reply

    async def _write(self, statement: str, *values: object) -> None:
        async with self._pool.acquire() as connection:
            if await connection.execute(statement, *values) == "INSERT 0 0":
                raise RuntimeError("nothing was written")


def _masked(source: PaymentSource) -> MaskedSource:
    return MaskedSource(
        object=source.object,
        name=source.name,
        number="*" * 12 + source.number[-4:],
        exp_month=source.exp_month,
        exp_year=source.exp_year,
        address_country=source.address_country,
        address_post_code=source.address_post_code,
    )


def _to_json(source: MaskedSource) -> str:
    return json.dumps({field.name: value for field, value in source.ListFields()}, separators=(",", ":"))


def _reply(payment_id: str, request: PayOrderRequest, source: MaskedSource, at: int) -> bytes:
    answer = OrderPayment(
        id=payment_id,
        amount=request.payment.amount,
        currency=request.payment.currency,
        source=source,
        status="succeeded",
    )
    answer.created_at.FromMilliseconds(at)
    return answer.SerializeToString()


def _new_payment(command: PayOrderCommand) -> Payment:
    return Payment(
        id=new_id(),
        order_id=command.order_id,
        amount=command.amount,
        source=command.source.masked(),
        status=PaymentStatus.PROCESSING,
        created_at=_clock.now(),
        processor="sandbox",
    )


async def _leave_as_it_is(_connection: object) -> None:
    """Instead of a round trip that resets what nobody has changed."""


async def serve(options: Options) -> None:
    async with asyncpg.create_pool(
        options.database_url, min_size=options.pool_size, max_size=options.pool_size, reset=_leave_as_it_is
    ) as pool:
        floor = Floor(options, pool)
        pay_order = grpc.unary_unary_rpc_method_handler(
            floor.pay_order_by_the_rules if options.obeys_rules else floor.pay_order,
            request_deserializer=PayOrderRequest.FromString,
        )
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("payments.v1.PaymentService", {"PayOrder": pay_order}),)
        )
        server.add_insecure_port(options.listen)
        await server.start()
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        await server.stop(1)


if __name__ == "__main__":
    logging.configure("INFO")
    uvloop.run(serve(Options(**json.loads(sys.argv[1]))))
