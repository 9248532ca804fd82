"""A payment: one attempt to take an order's amount from one source."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from payorder.domain.money import Money
from payorder.domain.outcome import Approved, Declined, Failed, Outcome, Unknown
from payorder.domain.source import MaskedSource
from payorder.domain.states import PAYMENT, PaymentStatus, move


@dataclass(frozen=True, slots=True)
class Payment:
    """One attempt, made with the processor of that name.

    A failed one has a `decline_code` if the processor declined, else a `failure` for operators.
    `source_fingerprint` is the same for every attempt with one card or bank account.
    """

    id: str
    order_id: str
    amount: Money
    source: MaskedSource
    status: PaymentStatus
    created_at: datetime
    processor: str
    reference: str | None = None
    decline_code: str | None = None
    failure: str | None = None
    source_fingerprint: bytes | None = None

    def after(self, outcome: Outcome) -> "Payment":
        """The payment once the processor has answered. Unknown changes nothing."""
        match outcome:
            case Approved(reference):
                return self._moved(PaymentStatus.SUCCEEDED, reference=reference)
            case Declined(code):
                return self._moved(PaymentStatus.FAILED, decline_code=code)
            case Failed(reason):
                return self._moved(PaymentStatus.FAILED, failure=reason)
            case Unknown():
                return self
            case _:
                assert_never(outcome)

    def cancelled(self) -> "Payment":
        """The payment once the processor has confirmed, to somebody who did not want it made, that it never will be."""
        return self._moved(PaymentStatus.CANCELLED)

    def still_processing(self) -> "Payment":
        """The payment as its caller may see it while its end is not written down."""
        return replace(self, status=PaymentStatus.PROCESSING)

    def _moved(
        self,
        status: PaymentStatus,
        *,
        reference: str | None = None,
        decline_code: str | None = None,
        failure: str | None = None,
    ) -> "Payment":
        return replace(
            self,
            status=move(PAYMENT, self.status, status),
            reference=reference,
            decline_code=decline_code,
            failure=failure,
        )
