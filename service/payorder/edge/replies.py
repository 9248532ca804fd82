"""Final answers as bytes: made once, stored with the change they tell of, and sent again unchanged.

Bytes are deterministic (map entries in the order of their keys), so that the first answer and its replay are the same.
"""

from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from payments.v1.order_service_pb2 import RequestCallbackResponse
from payorder.domain.errors import OrderCancelled
from payorder.domain.idempotency import Reply
from payorder.domain.order import Order
from payorder.domain.payment import Payment
from payorder.domain.states import PaymentStatus
from payorder.edge.status import REASONS, Declined, NotCharged, Row, Unanswered, status_of
from payorder.edge.translate import to_order_message, to_payment_message

# On every answer that was given before under the same key.
REPLAYED = ("idempotent-replayed", "true")


class ErrorReply(Exception):
    """A payment that ended without success: an answer, which gRPC can only give as an error."""

    def __init__(self, reply: Reply, *, is_replay: bool) -> None:
        super().__init__(reply.code)
        self.status = Status.FromString(reply.body)
        self.is_replay = is_replay

    @property
    def row(self) -> Row:
        info = ErrorInfo()
        self.status.details[0].Unpack(info)
        return REASONS[info.reason]


def to_bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def to_order_reply(order: Order) -> Reply:
    return Reply(StatusCode.OK.value[0], to_bytes(to_order_message(order)))


def to_callback_reply() -> Reply:
    return Reply(StatusCode.OK.value[0], to_bytes(RequestCallbackResponse()))


def to_payment_reply(payment: Payment) -> Reply:
    match payment.status:
        case PaymentStatus.FAILED:
            return _to_error_reply(Declined(payment) if payment.decline_code else NotCharged(payment))
        case PaymentStatus.CANCELLED:  # Together with its order, by an administrator.
            return _to_error_reply(OrderCancelled())
        case _:
            return Reply(StatusCode.OK.value[0], to_bytes(to_payment_message(payment)))


def _to_error_reply(error: Unanswered) -> Reply:
    status = status_of(error)
    return Reply(status.code, to_bytes(status))
