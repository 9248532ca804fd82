"""Every refusal: nothing happened, and why.

Refusal
├── MalformedRequest       the request itself cannot be read
├── InvalidFields          one entry for each broken field
├── AmountMismatch         not the order's amount
├── CurrencyMismatch       not the order's currency
├── Unauthenticated        no token, or none that is accepted
├── SubjectDisabled        the token is good, but whom it stands for has been shut out
├── ScopeMissing           the token does not allow this
├── OrderNotFound          no such order or payment, or somebody else's
├── OrderAlreadyPaid       a payment succeeded
├── OrderCancelled         the order was cancelled
├── IllegalStatusChange    the order's status does not lead to that one
├── EntryNotFound          no such entry of the audit log
├── ReceiptNotFound        the order has not been paid
├── WebhookNotFound        no such webhook endpoint or delivery, or somebody else's
├── WebhookLimitReached    there are as many webhook endpoints, or callbacks, as there may be
├── WebhookDisabled        by an administrator, so that nobody else enables it
├── PaymentInProgress      another attempt is being made
├── IdempotencyKeyReused   the key came with another request before
├── RateLimited            too many attempts to pay, or test events
├── TooManyWatches         no room for another stream
├── Busy                   no room, or no database, right now
└── DeadlineTooShort       the caller would be gone before the answer

An outcome of a processor, a decline among them, is an answer and no refusal. Any other exception is a bug.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class Refusal(Exception):
    """Nothing happened; the class says why."""


class BrokenRule(ValueError):
    """A value breaks a rule. Becomes a FieldFault where the field's name is known."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class FieldFault:
    """What is wrong with one field: `field` is a lowerCamelCase path; neither text repeats the value."""

    field: str
    code: str
    message: str


class MalformedRequest(Refusal):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidFields(Refusal):
    def __init__(self, faults: Sequence[FieldFault]) -> None:
        super().__init__()
        self.faults = tuple(faults)


class AmountMismatch(Refusal):
    pass


class CurrencyMismatch(Refusal):
    pass


class Unauthenticated(Refusal):
    def __init__(self, cause: str) -> None:
        """`cause` is for the log alone: every caller gets the same answer."""
        super().__init__(cause)
        self.cause = cause


class SubjectDisabled(Refusal):
    pass


class ScopeMissing(Refusal):
    def __init__(self, scope: str) -> None:
        super().__init__(scope)
        self.scope = scope


class OrderNotFound(Refusal):
    pass


class OrderAlreadyPaid(Refusal):
    def __init__(self, payment_id: str) -> None:
        super().__init__(payment_id)
        self.payment_id = payment_id


class OrderCancelled(Refusal):
    pass


class IllegalStatusChange(Refusal):
    def __init__(self, status: str) -> None:
        """`status` is the order's own."""
        super().__init__(status)
        self.status = status


class EntryNotFound(Refusal):
    pass


class ReceiptNotFound(Refusal):
    pass


class WebhookNotFound(Refusal):
    pass


class WebhookLimitReached(Refusal):
    pass


class WebhookDisabled(Refusal):
    pass


class PaymentInProgress(Refusal):
    def __init__(self, payment_id: str) -> None:
        super().__init__(payment_id)
        self.payment_id = payment_id


class IdempotencyKeyReused(Refusal):
    pass


class RateLimited(Refusal):
    def __init__(self, counted: str, retry_after_seconds: int) -> None:
        """`counted` is for the log alone: who tries cards need not know what has stopped them."""
        super().__init__(counted)
        self.counted = counted
        self.retry_after_seconds = retry_after_seconds


class TooManyWatches(Refusal):
    pass


class Busy(Refusal):
    pass


class DeadlineTooShort(Refusal):
    pass
