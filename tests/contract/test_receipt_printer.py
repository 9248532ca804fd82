"""Documents are made beside the calls: what they need is loaded with the first, and few may wait."""

import asyncio
import subprocess
import sys

from payorder.adapters.receipts.printer import Printer
from payorder.domain.errors import Busy
from payorder.domain.money import Currency, Money
from payorder.domain.receipt import Receipt, SignedReceipt
from payorder.ports.receipts import Document
from support.records import CARD, LATER

SIGNED = SignedReceipt(
    Receipt("receipt", "order", "payment", Money(4999, Currency("GBP", 2)), 0, CARD, None, LATER),
    url="url",
    seller=None,
    signature="a.b.c",
)
LOADED = "import sys, payorder.app; print([name for name in ('babel', 'jinja2', 'reportlab') if name in sys.modules])"


def test_to_serve_nothing_is_loaded_that_documents_need() -> None:
    shown = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=30, check=True)
    assert "[]" == shown.stdout.strip()


async def test_few_documents_wait_and_the_others_are_refused_at_once() -> None:
    printer = Printer()
    printed = await asyncio.gather(*(printer.print(SIGNED, "pdf", []) for _ in range(20)), return_exceptions=True)
    assert [Document] * 16 + [Busy] * 4 == [type(each) for each in printed]
    assert isinstance(await printer.print(SIGNED, "html", []), Document)


async def test_a_document_that_nobody_waits_for_leaves_its_place() -> None:
    printer = Printer()
    for _ in range(20):
        printing = asyncio.create_task(printer.print(SIGNED, "html", []))
        await asyncio.sleep(0)
        printing.cancel()
        await asyncio.gather(printing, return_exceptions=True)
    assert isinstance(await printer.print(SIGNED, "html", []), Document)


async def test_the_loop_does_not_stand_still_while_a_document_is_made() -> None:
    """Of what is made elsewhere the loop hears in a later turn at the earliest, however quick it was."""
    printing = asyncio.create_task(Printer().print(SIGNED, "pdf", []))
    await asyncio.sleep(0)
    assert not printing.done()
    assert isinstance(await printing, Document)
