"""What the audit log is told of calls that change nothing: what administrators read, and who was not allowed something.

Without the entry there is no answer. Whoever is refused can call as often as they like, so of what a caller may not do,
or not so often, there is one entry a minute, which says how many there were since the one before.
"""

import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from payorder.domain.errors import InvalidFields, MalformedRequest, RateLimited, Refusal, ScopeMissing, SubjectDisabled
from payorder.domain.origin import Origin
from payorder.edge.methods import ADMIN, Method
from payorder.edge.status import reason_name, row_of
from payorder.ports.audit import CallRecord
from payorder.ports.clock import Clock

# All else that a request may have stays out: free text could be anything.
_TOLD = frozenset(
    {
        "orderId",
        "entryId",
        "endpointId",
        "userId",
        "createdBy",
        "status",
        "currency",
        "createdAfter",
        "createdBefore",
        "after",
        "before",
        "amountMin",
        "amountMax",
        "pageSize",
    }
)
_NOT_ALLOWED = (ScopeMissing, SubjectDisabled, RateLimited)
# An id that is none could be anything, too.
_NOT_VALID = (InvalidFields, MalformedRequest)
_EVERY_SECONDS = 60.0
# Whom we have not refused for longest is forgotten first, and what was not told of them with it.
_REMEMBERED_MAX = 10_000


@dataclass(slots=True)
class _Told:
    """Of one caller, method and reason: until when nothing more is told, and what was not."""

    until: float
    untold: int = 0


class CallRecords:
    """Of one process. `record_call` writes the entry, in the chain of the caller."""

    def __init__(self, record_call: Callable[[CallRecord], Awaitable[None]], clock: Clock) -> None:
        self._record_call = record_call
        self._clock = clock
        self._told: OrderedDict[tuple[str, str, str], _Told] = OrderedDict()

    async def add_read(self, method: Method, origin: Origin, request: Message) -> None:
        await self._record_call(CallRecord(method.name, "done", origin, _asked(request)))

    async def add_refusal(self, method: Method, origin: Origin, refusal: Refusal, request: object) -> None:
        """An administrator's every refusal; of anybody, what is not allowed."""
        if isinstance(refusal, _NOT_ALLOWED):
            await self._add_now_and_then(method, origin, _cause(refusal))
        elif method.scope == ADMIN:
            detail = _cause(refusal)
            if isinstance(request, Message) and not isinstance(refusal, _NOT_VALID):
                detail = f"{detail} {_asked(request)}"
            await self._record_call(CallRecord(method.name, "refused", origin, detail))

    async def _add_now_and_then(self, method: Method, origin: Origin, cause: str) -> None:
        key, now = (origin.actor, method.name, cause), self._clock.uptime_seconds()
        told = self._told.setdefault(key, _Told(until=now))
        if now < told.until:
            told.untold += 1
            return
        # Before it is written, so that of many at once one is.
        told.until, untold, told.untold = now + _EVERY_SECONDS, told.untold, 0
        self._told.move_to_end(key)
        if len(self._told) > _REMEMBERED_MAX:
            self._told.popitem(last=False)
        try:
            detail = f"{cause}, and {untold} more since the entry before" if untold else cause
            await self._record_call(CallRecord(method.name, "refused", origin, detail))
        except BaseException:
            told.until, told.untold = now, told.untold + untold  # The next one is told instead.
            raise


def _asked(request: Message) -> str:
    return json.dumps({name: value for name, value in MessageToDict(request).items() if name in _TOLD})


def _cause(refusal: Refusal) -> str:
    reason = reason_name(row_of(refusal))
    return f"{reason}: {refusal.counted}" if isinstance(refusal, RateLimited) else reason
