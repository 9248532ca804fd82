"""What a payment processor must do for us."""

from collections.abc import Mapping
from typing import Protocol

from payorder.domain.money import Money
from payorder.domain.outcome import Outcome
from payorder.domain.source import Source


class Processor(Protocol):
    """A payment service provider. `key` is the payment id, its idempotency key: one key never charges twice.

    Answers with an Outcome and raises only on bugs. What is not certain is Unknown, never Failed.
    """

    async def charge(self, key: str, amount: Money, source: Source) -> Outcome:
        """Take `amount` from `source`. The source is not kept by the caller and must not be logged."""
        ...

    async def close(self) -> None:
        """Give back connections; nothing is called afterwards."""
        ...


class ProcessorFactory(Protocol):
    """What an entry point of the group `payorder.processors` is. Raises ValueError on an option it does not know."""

    def __call__(self, options: Mapping[str, str]) -> Processor: ...
