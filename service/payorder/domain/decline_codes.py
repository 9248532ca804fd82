"""Which decline codes callers are told.

Whoever tries stolen cards learns from the code which of them work. What a customer can do something about is told; all
else, such as lost_card, fraudulent or no_account, is one code for each kind of source. Operators see the processor's.
"""

from payorder.domain.source import MaskedSource

TOLD = frozenset({"insufficient_funds", "expired_card", "incorrect_cvc", "processing_error"})
CARD_DECLINED = "card_declined"
BANK_ACCOUNT_DECLINED = "bank_account_declined"


def as_told(decline_code: str, source: MaskedSource) -> str:
    if decline_code in TOLD:
        return decline_code
    return CARD_DECLINED if source.object == "card" else BANK_ACCOUNT_DECLINED
