"""What a payment processor must do for us."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from payorder.domain.money import Money
from payorder.domain.outcome import Outcome
from payorder.domain.source import Source


@dataclass(frozen=True, slots=True)
class Charge:
    """A charge in the processor's own books: `key` is the payment id it was made under."""

    key: str
    reference: str
    amount: Money


class ProcessorAway(Exception):
    """The processor's books cannot be read now."""


class Processor(Protocol):
    """A payment service provider. `key` is the payment id, its idempotency key: one key never charges twice.

    Answers with an Outcome and raises only on bugs. What is not certain is Unknown, never Failed; an answer about
    another amount than ours is not certain either.
    """

    async def charge(self, key: str, amount: Money, source: Source) -> Outcome:
        """Take `amount` from `source`, unless `key` was cancelled: then Failed. The source must not be logged."""
        ...

    async def cancel(self, key: str, amount: Money) -> Outcome:
        """Cancel or tell: afterwards `key` can never charge, if it has not charged `amount` already.

        Failed when the processor has confirmed that it never will charge, also for a key that it has not seen; Approved
        or Declined when that is how the charge ended. A request that could not be sent is Unknown here, because nothing
        was fenced. This is the fence that makes a late charge by a sleeping process harmless.
        """
        ...

    async def refund(self, key: str, reference: str, amount: Money) -> Outcome:
        """Give back `amount` of the charge `reference`. `key` is the refund id: one key never refunds twice."""
        ...

    async def charges(self, since: datetime) -> list[Charge]:
        """Every charge made since then, for the comparison of books. Raises ProcessorAway."""
        ...

    async def close(self) -> None:
        """Give back connections; nothing is called afterwards."""
        ...


class ProcessorFactory(Protocol):
    """What an entry point of the group `payorder.processors` is. Raises ValueError on an option it does not know."""

    def __call__(self, options: Mapping[str, str]) -> Processor: ...
