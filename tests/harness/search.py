"""Finds card data in bytes: the sentinel of harness.cards in the forms in which data is usually kept."""

import base64
import re
from collections.abc import Iterator

from harness.cards import SENTINEL

# A CVC alone is three digits like any others; what can be found is one that is named.
_NAMED_CVC = re.compile(rb"""(?i)\bcvc["'\\]{0,4}\s{0,2}[:=]\s{0,2}["'\\]{0,4}[0-9]{3,4}\b""")


def _base64_forms(text: bytes) -> Iterator[bytes]:
    """The part of its base64 that does not depend on what stands around, for each of the three alignments."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + text)
        yield encoded[4 if shift else 0 : -4]


def _forms() -> dict[str, bytes]:
    text = SENTINEL.encode()
    forms = {
        "plain": text,
        "UTF-16": SENTINEL.encode("utf-16-le"),
        "hex": text.hex().encode(),
        "reversed": text[::-1],
        "grouped by spaces": f"{SENTINEL[:4]} {SENTINEL[4:8]}".encode(),
        "grouped by dashes": f"{SENTINEL[:4]}-{SENTINEL[4:8]}".encode(),
    }
    return forms | {f"base64 {number}": form for number, form in enumerate(_base64_forms(text))}


FORMS = _forms()


def occurrences(data: bytes) -> Iterator[str]:
    for name, form in FORMS.items():
        if form in data:
            yield f"card number, {name}"
    if _NAMED_CVC.search(data):
        yield "CVC, named"
