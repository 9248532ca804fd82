"""What a comparison of the processor's books with ours has found. A finding is for a person: money is never guessed."""

from dataclasses import dataclass
from enum import StrEnum


class FindingKind(StrEnum):
    CHARGE_WITHOUT_PAYMENT = "charge_without_payment"
    CHARGE_OF_FAILED_PAYMENT = "charge_of_failed_payment"
    AMOUNT_DIFFERS = "amount_differs"
    REFERENCE_DIFFERS = "reference_differs"
    REFUND_DECLINED = "refund_declined"


@dataclass(frozen=True, slots=True)
class Finding:
    """`reference` is the processor's id of the charge, `key` the payment id that it was made under."""

    kind: FindingKind
    key: str
    reference: str
