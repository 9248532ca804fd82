"""The processor's books: what each key has come to. One lock for each key makes charge and cancel linearizable."""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field

from harness.processor.ledger import Ledger


@dataclass(slots=True)
class Record:
    """`state` is charged, declined or cancelled; `refunds` maps refund keys to amounts."""

    state: str
    amount_minor: int
    currency: str
    at: int
    reference: str = ""
    code: str = ""
    refunds: dict[str, int] = field(default_factory=dict)


class Accounts:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.records: dict[str, Record] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._references = 0

    async def charge(self, key: str, amount_minor: int, currency: str) -> Record:
        """What the key has come to; charged, if it was new."""
        async with self._locks[key]:
            return self.records.get(key) or self._open("charged", key, amount_minor, currency)

    async def decline(self, key: str, amount_minor: int, currency: str, code: str) -> Record:
        async with self._locks[key]:
            return self.records.get(key) or self._open("declined", key, amount_minor, currency, code=code)

    async def cancel(self, key: str, amount_minor: int, currency: str) -> Record:
        """What the key has come to; cancelled for ever, if it was new."""
        async with self._locks[key]:
            return self.records.get(key) or self._open("cancelled", key, amount_minor, currency)

    async def refund(self, refund_key: str, reference: str, amount_minor: int) -> str | None:
        """The refund's reference, the same for the same key; None if the charge has not that much left."""
        key = next((key for key, record in self.records.items() if record.reference == reference), None)
        if key is None or not reference:
            return None
        async with self._locks[key]:
            record = self.records[key]
            if refund_key not in record.refunds:
                # A processor may well refund more than it has taken, if it is told to: the service must not tell it.
                record.refunds[refund_key] = amount_minor
                facts = {"reference": reference, "amount_minor": amount_minor, "currency": record.currency}
                self._ledger.write("refund", key=refund_key, charge_key=key, **facts)
            return f"re_{refund_key}"

    def _open(self, state: str, key: str, amount_minor: int, currency: str, *, code: str = "") -> Record:
        record = Record(state, amount_minor, currency, time.time_ns() // 1_000_000, code=code)
        if state == "charged":
            self._references += 1
            record.reference = f"ch_{self._references:06}"
        facts = {"amount_minor": amount_minor, "currency": currency, "reference": record.reference, "code": code}
        self._ledger.write(state, key=key, **{name: value for name, value in facts.items() if value})
        self.records[key] = record
        return record
