"""The plug-in for that processor: the port over HTTP. Definite only for a whole, well-formed, fitting answer."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import aiohttp

from harness.crash_points import reach
from payorder.domain.money import Currency, Money
from payorder.domain.outcome import Approved, Declined, Failed, Outcome, Unknown
from payorder.domain.source import Source
from payorder.ports.processor import Charge, ProcessorAway

Body = dict[str, Any]


class _NeverSent(Exception):
    """The request certainly did not leave us."""


class _Refused(Exception):
    """The processor says that it did not even read the request."""


class _Doubtful(Exception):
    """It may have arrived."""


class FaultyProcessor:
    """Implements payorder.ports.processor.Processor."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._opened: aiohttp.ClientSession | None = None

    async def charge(self, key: str, amount: Money, source: Source) -> Outcome:
        reach("charge.before_send")
        number = source.number.reveal()
        outcome = await self._outcome("charge", {"key": key, **_amount(amount), "number": number}, amount)
        reach("charge.after_answer")
        return outcome

    async def cancel(self, key: str, amount: Money) -> Outcome:
        reach("cancel.before_send")
        outcome = await self._outcome("cancel", {"key": key, **_amount(amount)}, amount)
        reach("cancel.after_answer")
        # For a fence "not sent" is no answer: the key may still charge.
        return Unknown() if isinstance(outcome, Failed) and outcome.reason != "cancelled" else outcome

    async def refund(self, key: str, reference: str, amount: Money) -> Outcome:
        reach("refund.before_send")
        try:
            told = await self._post("refund", {"key": key, "reference": reference, **_amount(amount)})
        except (_NeverSent, _Refused):
            return Failed("unreachable")
        except _Doubtful:
            return Unknown()
        reach("refund.after_answer")
        match told:
            case {"status": "refunded", "reference": str(refund), "amount_minor": amount.amount_minor}:
                return Approved(refund)
            case {"status": "refused"}:
                return Declined("refund_refused")
            case _:
                return Unknown()

    async def charges(self, since: datetime) -> list[Charge]:
        try:
            query = {"since": str(int(since.timestamp() * 1000))}
            async with self._session.get(f"{self._url}/charges", params=query) as response:
                listed = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ProcessorAway from error
        return [_charge(told) for told in listed]

    async def find(self, key: str) -> str:
        """No part of the port: what a variant asks that believes a "not found"."""
        async with self._session.get(f"{self._url}/charge", params={"key": key}) as response:
            told = await response.json()
        return str(told.get("reference") or told["status"])

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def _outcome(self, operation: str, body: Body, amount: Money) -> Outcome:
        try:
            return _read(await self._post(operation, body), amount)
        except _NeverSent:
            return Failed("unreachable")
        except _Refused:
            return Failed("throttled")
        except _Doubtful:
            return Unknown()

    async def _post(self, operation: str, body: Body) -> object:
        try:
            async with self._session.post(f"{self._url}/{operation}", json=body) as response:
                if response.status == 429:
                    raise _Refused
                if response.status != 200:
                    raise _Doubtful
                return await response.json()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _NeverSent from error
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            raise _Doubtful from error

    @property
    def _session(self) -> aiohttp.ClientSession:
        # Made late: a session belongs to a running loop. Connections are not kept, so a refused one was never sent.
        if self._opened is None:
            connector = aiohttp.TCPConnector(force_close=True, limit=0)
            self._opened = aiohttp.ClientSession(timeout=self._timeout, connector=connector)
        return self._opened


def from_options(options: Mapping[str, str]) -> FaultyProcessor:
    """The processor at `url`; a call gives up after `timeout_seconds`."""
    unknown = sorted(options.keys() - {"url", "timeout_seconds"})
    if unknown or "url" not in options:
        raise ValueError("faulty: the options are url and timeout_seconds")
    return FaultyProcessor(options["url"], float(options.get("timeout_seconds", "20")))


def _charge(told: Body) -> Charge:
    facts: Body = {name: told[name] for name in Charge.__dataclass_fields__ if name != "amount"}
    return Charge(amount=Money(told["amount_minor"], Currency(told["currency"], 2)), **facts)


def _amount(amount: Money) -> Body:
    return {"amount_minor": amount.amount_minor, "currency": amount.currency.code}


def _read(told: object, amount: Money) -> Outcome:
    match told:
        case {"status": "charged", "reference": str(reference), **rest} if _amount(amount).items() <= rest.items():
            return Approved(reference)
        case {"status": "declined", "code": str(code), **rest} if _amount(amount).items() <= rest.items():
            return Declined(code)
        case {"status": "cancelled", **rest} if _amount(amount).items() <= rest.items():
            return Failed("cancelled")
        case _:
            return Unknown()
