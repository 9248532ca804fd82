"""The ReceiptPrinter port, in a thread of its own: no call waits for a page that is being made."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import assert_never

from payorder.domain.errors import Busy
from payorder.domain.receipt import SignedReceipt
from payorder.ports.receipts import Document, Format

# A document takes some milliseconds of one core, which payments want too.
_WAITING_MAX = 16


class Printer:
    """Implements payorder.ports.receipts.ReceiptPrinter. One document is made at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="receipts")
        self._waiting = 0

    async def print(self, signed: SignedReceipt, form: Format, locales: Sequence[str]) -> Document:
        if self._waiting >= _WAITING_MAX:
            raise Busy
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, _print, signed, form, tuple(locales))
        finally:
            self._waiting -= 1


def _print(signed: SignedReceipt, form: Format, locales: Sequence[str]) -> Document:
    # Loaded with the first document: together they would add a quarter of a second to every start.
    from payorder.adapters.receipts import page, paper  # noqa: PLC0415 - as said above
    from payorder.adapters.receipts.lines import lines_of  # noqa: PLC0415 - as said above

    match form:
        case "html":
            return page.make(lines_of(signed, locales, page.can_show), signed.signature)
        case "pdf":
            return paper.make(lines_of(signed, locales, paper.can_show), signed.signature)
        case _:
            assert_never(form)
