"""PaymentService: translation between protobuf and the workflows."""

from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody

from payments.v1.payment_pb2 import OrderPayment
from payments.v1.payment_service_pb2 import (
    GetPaymentRequest,
    GetReceiptKeysRequest,
    GetReceiptRequest,
    ListPaymentsRequest,
    ListPaymentsResponse,
    PayOrderRequest,
    RenderReceiptRequest,
)
from payments.v1.payment_service_pb2_grpc import PaymentServiceServicer
from payments.v1.receipt_pb2 import Receipt, ReceiptKeys
from payorder.edge.caller import current_origin
from payorder.edge.headers import location_of, send_headers
from payorder.edge.idempotency import IdempotencyKeys
from payorder.edge.receipts import Receipts
from payorder.edge.replies import REPLAYED, ErrorReply
from payorder.edge.translate import (
    to_id,
    to_next_page_token,
    to_page_request,
    to_pay_order_command,
    to_payment_message,
)
from payorder.ports.store import Store
from payorder.workflows.pay_order import PayOrder, PayOrderAnswer

Context = grpc.aio.ServicerContext[Any, Any]

# Kept back of the caller's deadline, so that "processing" still reaches it.
_ANSWER_MARGIN_SECONDS = 0.5


class PaymentServicer(PaymentServiceServicer):
    def __init__(
        self,
        *,
        pay_order: PayOrder,
        store: Store,
        keys: IdempotencyKeys,
        receipts: Receipts,
        answer_within_seconds: float,
    ) -> None:
        self._pay_order = pay_order
        self._store = store
        self._keys = keys
        self._receipts = receipts
        self._answer_within_seconds = answer_within_seconds

    async def PayOrder(self, request: PayOrderRequest, context: Context) -> OrderPayment:
        key, seconds = self._keys.of(request), self._seconds_to_answer(context)
        command = to_pay_order_command(request, current_origin(), key, answer_within_seconds=seconds)
        answer = await self._pay_order(command)
        if answer.reply.code != grpc.StatusCode.OK.value[0]:
            raise ErrorReply(answer.reply, is_replay=answer.is_replay)
        await send_headers(context, _headers_of(answer))
        return OrderPayment.FromString(answer.reply.body)

    async def GetPayment(self, request: GetPaymentRequest, context: Context) -> OrderPayment:
        owner = current_origin().owner
        if request.HasField("payment_id"):
            return to_payment_message(await self._store.get_payment(to_id(request.payment_id), owner))
        return to_payment_message(await self._store.get_latest_payment(to_id(request.order_id), owner))

    async def ListPayments(self, request: ListPaymentsRequest, context: Context) -> ListPaymentsResponse:
        owner = current_origin().owner
        page = await self._store.list_payments(to_id(request.order_id), owner, to_page_request(request))
        return ListPaymentsResponse(data=map(to_payment_message, page.items), next_page_token=to_next_page_token(page))

    async def GetReceipt(self, request: GetReceiptRequest, context: Context) -> Receipt:
        return await self._receipts.get(request)

    async def RenderReceipt(self, request: RenderReceiptRequest, context: Context) -> HttpBody:
        return await self._receipts.render(request, context)

    async def GetReceiptKeys(self, request: GetReceiptKeysRequest, context: Context) -> ReceiptKeys:
        return await self._receipts.keys(context)

    def _seconds_to_answer(self, context: Context) -> float:
        left = context.time_remaining()
        if left is None:
            return self._answer_within_seconds
        return min(self._answer_within_seconds, left - _ANSWER_MARGIN_SECONDS)


def _headers_of(answer: PayOrderAnswer) -> list[tuple[str, str]]:
    """Where the payment is, 202 while its outcome is not known, a replay."""
    headers = location_of(f"/payments/{answer.payment_id}")
    if answer.is_open:
        headers.append(("x-http-status", "202"))
    if answer.is_replay:
        headers.append(REPLAYED)
    return headers
