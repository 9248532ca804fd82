"""A receipt as a PDF. What no font of it can show is written as its number in Unicode: [U+1F9FE]."""

from collections.abc import Container, Iterator, Sequence
from functools import cache
from html import escape
from io import BytesIO
from itertools import groupby

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from payorder.adapters.receipts.lines import Line
from payorder.ports.receipts import Document

_MARGIN = 22 * mm
_NAME_WIDTH = 32 * mm
_INK, _GREY, _RULE = HexColor("#1f2937"), HexColor("#4b5563"), HexColor("#e5e7eb")

# Comes with reportlab, and is embedded.
_LATIN = "Vera"
# Not embedded: readers bring them. Each has what its encoding has, Greek and Cyrillic too.
_EAST_ASIAN = {
    "HeiseiKakuGo-W5": "shift_jis",
    "STSong-Light": "gbk",
    "MSung-Light": "big5",
    "HYGothic-Medium": "euc_kr",
}

_TITLE = ParagraphStyle("title", fontName=_LATIN, fontSize=20, leading=28, textColor=_INK)
_NAME = ParagraphStyle("name", fontName=_LATIN, fontSize=9.5, leading=14, textColor=_GREY)
_TEXT = ParagraphStyle("text", _NAME, textColor=_INK)
_SMALL = ParagraphStyle("small", fontName=_LATIN, fontSize=7, leading=10, textColor=_GREY)

_ABOUT = "Anyone can verify this text with the published keys of the service. It is a JWS (RFC 7515)."
_ABOUT_NUMBERS = (
    "Characters that this document has no font for are written as their numbers in Unicode, in square brackets."
)


def make(lines: Sequence[Line], signature: str) -> Document:
    content = BytesIO()
    # Invariant: the same receipt is the same bytes, whenever it is printed.
    paper = SimpleDocTemplate(
        content, pagesize=A4, leftMargin=_MARGIN, rightMargin=_MARGIN, title="Receipt", invariant=1
    )
    rows = [[Paragraph(line.name, _NAME), Paragraph(to_markup(line.text), _TEXT)] for line in lines]
    # A row may be taller than a page: what no font has is written as numbers, which are long.
    table = Table(rows, colWidths=(_NAME_WIDTH, None), style=_ruled(), splitInRow=1)
    paper.build([Paragraph("Receipt", _TITLE), table, *_notes(lines), *_signed(signature)])
    return Document("application/pdf", content.getvalue())


def can_show(text: str) -> bool:
    return all(map(_font_of, text))


def to_markup(text: str) -> str:
    """Markup of reportlab's that shows the text line by line, each part of it in a font that has it."""
    return "<br/>".join(map(_line_to_markup, text.split("\n")))


def _line_to_markup(text: str) -> str:
    # The narrow one is missing in more fonts than the wide one, and means the same.
    parts = groupby(text.replace("\N{NARROW NO-BREAK SPACE}", "\N{NO-BREAK SPACE}"), _font_of)
    return "".join(_in_font(font, "".join(part)) for font, part in parts)


def _in_font(font: str | None, text: str) -> str:
    if font is None:
        return "".join(f"[U+{ord(character):04X}]" for character in text)
    shown = escape(text, quote=False)
    return shown if font == _LATIN else f'<font name="{font}">{shown}</font>'


@cache
def _fonts() -> Container[int]:
    """Registers them, and answers which characters the Latin one has."""
    latin = TTFont(_LATIN, f"{_LATIN}.ttf")
    pdfmetrics.registerFont(latin)
    for name in _EAST_ASIAN:
        pdfmetrics.registerFont(UnicodeCIDFont(name))
    return frozenset(latin.face.charToGlyph)


def _font_of(character: str) -> str | None:
    if ord(character) in _fonts():
        return _LATIN
    return next((font for font, encoding in _EAST_ASIAN.items() if _is_encodable(character, encoding)), None)


def _is_encodable(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _notes(lines: Sequence[Line]) -> Iterator[Paragraph]:
    if not all(can_show(line.text) for line in lines):
        yield Paragraph(_ABOUT_NUMBERS, _SMALL)


def _signed(signature: str) -> Iterator[Paragraph | Spacer]:
    yield Spacer(0, 10 * mm)
    yield Paragraph("Signature", _NAME)
    yield Paragraph(_ABOUT, _SMALL)
    yield Spacer(0, 2 * mm)
    yield Paragraph(signature, _SMALL)


def _ruled() -> TableStyle:
    return TableStyle(
        [
            ("LINEBELOW", (0, 0), (-1, -1), 0.5, _RULE),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ]
    )
