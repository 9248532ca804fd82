"""A receipt as a page of HTML that loads nothing and runs nothing: every text in it is escaped."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from payorder.adapters.receipts.lines import Line
from payorder.ports.receipts import Document

_TEMPLATES = Path(__file__).with_name("templates")
_STYLE = (_TEMPLATES / "receipt.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)


def can_show(_text: str) -> bool:
    """Browsers have fonts for everything."""
    return True


def make(lines: Sequence[Line], signature: str) -> Document:
    text = _environment.get_template("receipt.html").render(lines=lines, signature=signature, style=_STYLE)
    return Document("text/html; charset=utf-8", text.encode(), _POLICY)
