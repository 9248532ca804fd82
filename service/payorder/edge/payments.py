"""PaymentService: translation between protobuf and the workflows."""

from typing import Any

import grpc

from payments.v1.payment_pb2 import OrderPayment
from payments.v1.payment_service_pb2 import (
    GetPaymentRequest,
    ListPaymentsRequest,
    ListPaymentsResponse,
    PayOrderRequest,
)
from payments.v1.payment_service_pb2_grpc import PaymentServiceServicer
from payorder.domain.payment import Payment
from payorder.domain.states import PaymentStatus
from payorder.edge.caller import current_caller
from payorder.edge.status import Declined, NotCharged
from payorder.edge.translate import (
    to_id,
    to_next_page_token,
    to_page_request,
    to_pay_order_command,
    to_payment_message,
)
from payorder.ports.store import Store
from payorder.workflows.pay_order import PayOrder

Context = grpc.aio.ServicerContext[Any, Any]

# Kept back of the caller's deadline, so that "processing" still reaches it.
_ANSWER_MARGIN_SECONDS = 0.5


class PaymentServicer(PaymentServiceServicer):
    def __init__(self, *, pay_order: PayOrder, store: Store, answer_within_seconds: float) -> None:
        self._pay_order = pay_order
        self._store = store
        self._answer_within_seconds = answer_within_seconds

    async def PayOrder(self, request: PayOrderRequest, context: Context) -> OrderPayment:
        command = to_pay_order_command(
            request, current_caller(), answer_within_seconds=self._seconds_to_answer(context)
        )
        payment = await self._pay_order(command)
        _raise_if_unsuccessful(payment)
        await context.send_initial_metadata(_metadata_of(payment))
        return to_payment_message(payment)

    async def GetPayment(self, request: GetPaymentRequest, context: Context) -> OrderPayment:
        owner = current_caller().subject
        if request.HasField("payment_id"):
            return to_payment_message(await self._store.get_payment(to_id(request.payment_id), owner))
        return to_payment_message(await self._store.get_latest_payment(to_id(request.order_id), owner))

    async def ListPayments(self, request: ListPaymentsRequest, context: Context) -> ListPaymentsResponse:
        owner = current_caller().subject
        page = await self._store.list_payments(to_id(request.order_id), owner, to_page_request(request))
        return ListPaymentsResponse(data=map(to_payment_message, page.items), next_page_token=to_next_page_token(page))

    def _seconds_to_answer(self, context: Context) -> float:
        left = context.time_remaining()
        if left is None:
            return self._answer_within_seconds
        return min(self._answer_within_seconds, left - _ANSWER_MARGIN_SECONDS)


def _raise_if_unsuccessful(payment: Payment) -> None:
    if payment.status is PaymentStatus.FAILED:
        raise Declined(payment) if payment.decline_code else NotCharged(payment)


def _metadata_of(payment: Payment) -> tuple[tuple[str, str], ...]:
    """What the REST edge turns into headers: where the payment is, and 202 while its outcome is not known."""
    location = ("location", f"/payments/{payment.id}")
    if payment.status is PaymentStatus.PROCESSING:
        return location, ("x-http-status", "202")
    return (location,)
