"""Sign the audit log, again and again: every replica tries, and the database lets one of them."""

import asyncio
from collections.abc import Callable

from payorder.domain.errors import Busy
from payorder.domain.seal import Seal
from payorder.ports.signing import Signer
from payorder.ports.store import Interval, Store
from payorder.workflows.repeat import repeat

# No statement and no pause in a transaction is let last so long.
SETTLED_AFTER_SECONDS = 60.0
# How many times in an interval it is looked whether one is over.
_LOOKS = 4


class SealAuditLog:
    """`on_seal` is told of each: whoever keeps that elsewhere has a copy that no owner of the database can change.

    A replica whose own last seal is gone signs nothing more: what is in its place would look as if it had been there.
    """

    def __init__(
        self,
        *,
        store: Store,
        signer: Signer,
        every_seconds: float,
        on_seal: Callable[[Seal], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._signer = signer
        self._when = Interval(every_seconds, SETTLED_AFTER_SECONDS)
        self._on_seal = on_seal
        self._on_fault = on_fault
        self._stopping = asyncio.Event()
        self._last: Seal | None = None

    async def run(self) -> None:
        """Until `stop`. A database that is away is asked again at the next round."""
        look_seconds = self._when.every_seconds / _LOOKS
        await repeat(self.seal, look_seconds, self._stopping, away=(Busy,), on_fault=self._on_fault)

    def stop(self) -> None:
        self._stopping.set()

    async def seal(self) -> None:
        """Everything that is due: after a long time there is more than one."""
        while not self._stopping.is_set():
            seal = await self._store.seal_audit_log(self._signer, self._when, self._last)
            if seal is None:
                return
            self._last = seal
            self._on_seal(seal)
