"""Refusals and unsuccessful payments as google.rpc.Status: one table, and the details every error carries.

Sources: AIP-193 (ErrorInfo, BadRequest), RFC 9457 (Problem). The Problem stands last: there the REST edge
takes it from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from payments.v1.error_reason_pb2 import ErrorReason
from payments.v1.problem_pb2 import FieldError, Problem
from payorder.domain.decline_codes import as_told
from payorder.domain.errors import (
    AmountMismatch,
    Busy,
    CurrencyMismatch,
    DeadlineTooShort,
    EntryNotFound,
    FieldFault,
    IdempotencyKeyReused,
    IllegalStatusChange,
    InvalidFields,
    MalformedRequest,
    OrderAlreadyPaid,
    OrderCancelled,
    OrderNotFound,
    PaymentInProgress,
    RateLimited,
    ReceiptNotFound,
    Refusal,
    ScopeMissing,
    SubjectDisabled,
    TooManyWatches,
    Unauthenticated,
    WebhookDisabled,
    WebhookLimitReached,
    WebhookNotFound,
)
from payorder.domain.payment import Payment

ERROR_DOMAIN = "payments.v1"
PROBLEM_TYPE_PREFIX = "urn:payorder:problem:"
# More would not fit the metadata that carries a Status (8 KiB).
FIELD_ERRORS_MAX = 16


class Declined(Exception):
    """The payment was made and the processor said no: an answer, which gRPC can only give as an error."""

    def __init__(self, payment: Payment) -> None:
        super().__init__(payment.id)
        self.payment = payment


class NotCharged(Exception):
    """The payment was made and the processor was certainly not reached, or refused it unread."""

    def __init__(self, payment: Payment) -> None:
        super().__init__(payment.id)
        self.payment = payment


class Internal(Exception):
    """A fault of ours. Nothing of it is told but the id under which the log has it."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id


Unanswered = Refusal | Declined | NotCharged | Internal


@dataclass(frozen=True, slots=True)
class Row:
    """How one kind of error is told: `http` is the REST status, `title` the same for every occurrence (RFC 9457)."""

    code: StatusCode
    http: int
    reason: ErrorReason.ValueType
    title: str
    detail: str
    retry_after_seconds: int | None = None


def reason_name(row: Row) -> str:
    return ErrorReason.Name(row.reason).removeprefix("ERROR_REASON_")


R = ErrorReason
STATUS: Mapping[type[Unanswered], Row] = {
    MalformedRequest: Row(
        StatusCode.INVALID_ARGUMENT,
        400,
        R.ERROR_REASON_BAD_REQUEST,
        "The request cannot be read",
        "The request is not of the documented form.",
    ),
    InvalidFields: Row(
        StatusCode.INVALID_ARGUMENT,
        422,
        R.ERROR_REASON_INVALID_FIELDS,
        "Some fields are not valid",
        "See errors for each field.",
    ),
    AmountMismatch: Row(
        StatusCode.INVALID_ARGUMENT,
        422,
        R.ERROR_REASON_AMOUNT_MISMATCH,
        "The amount is not the order's",
        "An order is paid in full, with exactly its total amount.",
    ),
    CurrencyMismatch: Row(
        StatusCode.INVALID_ARGUMENT,
        422,
        R.ERROR_REASON_CURRENCY_MISMATCH,
        "The currency is not the order's",
        "An order is paid in its own currency.",
    ),
    Unauthenticated: Row(
        StatusCode.UNAUTHENTICATED,
        401,
        R.ERROR_REASON_UNAUTHENTICATED,
        "Authentication is required",
        "Send a valid access token as a bearer token.",
    ),
    SubjectDisabled: Row(
        StatusCode.PERMISSION_DENIED,
        403,
        R.ERROR_REASON_SUBJECT_DISABLED,
        "The caller is disabled",
        "The access token is valid, but its subject may not call for now.",
    ),
    ScopeMissing: Row(
        StatusCode.PERMISSION_DENIED,
        403,
        R.ERROR_REASON_SCOPE_MISSING,
        "The token does not allow this",
        "The access token lacks the scope that this call needs.",
    ),
    OrderNotFound: Row(
        StatusCode.NOT_FOUND,
        404,
        R.ERROR_REASON_ORDER_NOT_FOUND,
        "There is no such order",
        "No such order or payment exists for this caller.",
    ),
    OrderAlreadyPaid: Row(
        StatusCode.FAILED_PRECONDITION,
        409,
        R.ERROR_REASON_ORDER_ALREADY_PAID,
        "The order has been paid",
        "A payment of this order succeeded before.",
    ),
    OrderCancelled: Row(
        StatusCode.FAILED_PRECONDITION,
        409,
        R.ERROR_REASON_ORDER_CANCELLED,
        "The order was cancelled",
        "A cancelled order cannot be paid.",
    ),
    IllegalStatusChange: Row(
        StatusCode.FAILED_PRECONDITION,
        409,
        R.ERROR_REASON_ILLEGAL_STATUS_CHANGE,
        "The order cannot come into that status",
        "An approved order is shipped, and a shipped one is delivered; nothing was done by this call.",
    ),
    EntryNotFound: Row(
        StatusCode.NOT_FOUND,
        404,
        R.ERROR_REASON_ENTRY_NOT_FOUND,
        "There is no such entry",
        "The audit log has no entry of this id.",
    ),
    ReceiptNotFound: Row(
        StatusCode.NOT_FOUND,
        404,
        R.ERROR_REASON_RECEIPT_NOT_FOUND,
        "There is no receipt",
        "The order has not been paid.",
    ),
    WebhookNotFound: Row(
        StatusCode.NOT_FOUND,
        404,
        R.ERROR_REASON_WEBHOOK_NOT_FOUND,
        "There is no such webhook",
        "No such webhook endpoint or delivery exists for this caller.",
    ),
    WebhookLimitReached: Row(
        StatusCode.FAILED_PRECONDITION,
        409,
        R.ERROR_REASON_WEBHOOK_LIMIT_REACHED,
        "There are too many webhooks",
        "Delete one that is not needed any more; nothing was done by this call.",
    ),
    WebhookDisabled: Row(
        StatusCode.FAILED_PRECONDITION,
        409,
        R.ERROR_REASON_WEBHOOK_DISABLED_BY_ADMINISTRATOR,
        "An administrator has disabled the webhook",
        "Only an administrator can enable it again; nothing was done by this call.",
    ),
    PaymentInProgress: Row(
        StatusCode.ABORTED,
        409,
        R.ERROR_REASON_PAYMENT_IN_PROGRESS,
        "A payment is in progress",
        "Read the payment to learn how it ends; nothing was done by this call.",
    ),
    IdempotencyKeyReused: Row(
        StatusCode.INVALID_ARGUMENT,
        422,
        R.ERROR_REASON_IDEMPOTENCY_KEY_REUSED,
        "The idempotency key was used before",
        "This key came with another request; nothing was done by this call.",
    ),
    RateLimited: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        429,
        R.ERROR_REASON_RATE_LIMITED,
        "Too many requests",
        "Nothing was done; repeat later.",
        retry_after_seconds=1,
    ),
    TooManyWatches: Row(
        StatusCode.RESOURCE_EXHAUSTED,
        429,
        R.ERROR_REASON_WATCH_LIMIT_REACHED,
        "Too many orders are watched",
        "As many streams are open as may be: end one, or repeat later.",
        retry_after_seconds=5,
    ),
    Busy: Row(
        StatusCode.UNAVAILABLE,
        503,
        R.ERROR_REASON_BUSY,
        "The service is busy",
        "Nothing was done; repeat later.",
        retry_after_seconds=1,
    ),
    DeadlineTooShort: Row(
        StatusCode.DEADLINE_EXCEEDED,
        504,
        R.ERROR_REASON_DEADLINE_TOO_SHORT,
        "The deadline is too short",
        "Nothing was done; repeat with more time before the deadline.",
    ),
    Declined: Row(
        StatusCode.FAILED_PRECONDITION,
        422,
        R.ERROR_REASON_PAYMENT_DECLINED,
        "The payment was declined",
        "No money was taken. The order stays placed and can be paid again.",
    ),
    NotCharged: Row(
        StatusCode.UNAVAILABLE,
        503,
        R.ERROR_REASON_PROCESSOR_UNAVAILABLE,
        "The payment processor is not available",
        "No money was taken. The order stays placed and can be paid again.",
        retry_after_seconds=5,
    ),
    Internal: Row(
        StatusCode.INTERNAL,
        500,
        R.ERROR_REASON_INTERNAL,
        "Something went wrong",
        "Read the order to learn its state before you repeat the call.",
    ),
}


REASONS: Mapping[str, Row] = {reason_name(row): row for row in STATUS.values()}


def row_of(error: Unanswered) -> Row:
    return STATUS[type(error)]


def retry_after_seconds_of(error: Unanswered) -> int | None:
    return error.retry_after_seconds if isinstance(error, RateLimited) else row_of(error).retry_after_seconds


def status_of(error: Unanswered) -> Status:
    """The Status of an error: ErrorInfo, BadRequest where fields are named, and the Problem, last."""
    row = row_of(error)
    faults = _faults(error)
    status = Status(code=row.code.value[0], message=row.detail, details=[_pack(_error_info(row, error))])
    if faults:
        violations = [BadRequest.FieldViolation(field=f.field, description=f.message, reason=f.code) for f in faults]
        status.details.append(_pack(BadRequest(field_violations=violations)))
    status.details.append(_pack(_problem(row, error, faults)))
    return status


def _error_info(row: Row, error: Unanswered) -> ErrorInfo:
    return ErrorInfo(reason=reason_name(row), domain=ERROR_DOMAIN, metadata=_metadata(error))


def _problem(row: Row, error: Unanswered, faults: list[FieldFault]) -> Problem:
    reason = reason_name(row)
    return Problem(
        type=PROBLEM_TYPE_PREFIX + reason.lower().replace("_", "-"),
        title=row.title,
        status=row.http,
        detail=error.message if isinstance(error, MalformedRequest) else row.detail,
        reason=reason,
        payment_id=_metadata(error).get("paymentId"),
        errors=[FieldError(field=fault.field, message=fault.message, code=fault.code) for fault in faults],
    )


def _metadata(error: Unanswered) -> dict[str, str]:  # noqa: PLR0911 - a table of kinds
    match error:
        case OrderAlreadyPaid() | PaymentInProgress():
            return {"paymentId": error.payment_id}
        case Declined():
            return {"paymentId": error.payment.id, "declineCode": _decline_code(error.payment)}
        case NotCharged():
            return {"paymentId": error.payment.id}
        case IllegalStatusChange():
            return {"status": error.status}
        case ScopeMissing():
            return {"scope": error.scope}
        case Internal():
            return {"requestId": error.request_id}
        case _:
            return {}


def _faults(error: Unanswered) -> list[FieldFault]:
    match error:
        case InvalidFields():
            return list(error.faults[:FIELD_ERRORS_MAX])
        case AmountMismatch():
            return [FieldFault("amount", "amount_mismatch", "must be the order's total amount")]
        case CurrencyMismatch():
            return [FieldFault("currency", "currency_mismatch", "must be the order's currency")]
        case Declined():
            return [FieldFault("source", _decline_code(error.payment), "was declined by the processor")]
        case _:
            return []


def _decline_code(payment: Payment) -> str:
    return as_told(payment.decline_code or "", payment.source)


def _pack(message: ErrorInfo | BadRequest | Problem) -> Any:
    detail = Any()
    detail.Pack(message)
    return detail
