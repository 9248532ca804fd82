"""Receipts of paid orders, through every door: what they say, how they are written, and that nothing in them acts."""

import re
from base64 import b64decode
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from html import unescape
from io import BytesIO
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from babel import Locale
from babel.dates import format_datetime
from pypdf import PdfReader

from payorder.adapters.receipts import page as html_page
from payorder.adapters.receipts import paper
from payorder.adapters.receipts.lines import LOCALES, lines_of
from payorder.config import SELLER_LINE_LENGTH_MAX, SELLER_LINES_MAX
from payorder.domain.money import Currency, Money
from payorder.domain.receipt import Receipt, SignedReceipt
from support.browser import NAMES, Page, browser, installed
from support.doors import Answer, Body, Door, repeat_while_busy
from support.orders import Orders
from support.records import CARD, NOON
from support.requests import bank_payment, payment
from support.service import serving, until
from support.stack import Stack

# Of ./dev up.
SELLER = "Rex & Friends (demo)\n123 Fake Street\nLondon N12 9XX\nshop@example.com"

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=file:///etc/passwd>",
    '<svg onload="alert(1)">',
    "{{7*7}} ${7*7} #{7*7} {% raw %}",
    "</td></table><b>&amp;&lt;",
    "</script><!-- ]]>",
    "<font name='x'><a href='javascript:alert(1)'>a</a></para>",
)


async def paid(stack: Stack, order: Body | None = None, **source: Any) -> str:
    """An order of alice's that is paid as it was placed."""
    wanted = {"totalAmount": "49.99", "currency": "GBP"} | (order or {})
    created = await good(stack.grpc, "CreateOrder", wanted, stack.token())
    body = payment(wanted["totalAmount"], wanted["currency"], **source)
    await good(stack.grpc, "PayOrder", {"orderId": created.body["id"], "payment": body}, stack.token())
    return str(created.body["id"])


async def good(door: Door, rpc: str, request: Body, token: str) -> Answer:
    answer = await door.call(rpc, request, token=token)
    assert ("OK", None) == (answer.code, answer.reason)
    return answer


async def receipt_of(stack: Stack, order: str, door: Door | None = None) -> Body:
    return (await good(door or stack.rest, "GetReceipt", {"orderId": order}, stack.token())).body


async def document_of(stack: Stack, order: str, form: str, *, accepts: str | None = None, **query: str) -> Answer:
    send = partial(
        stack.rest.send,
        "GET",
        f"/orders/{order}/receipt",
        token=stack.token(),
        query={"format": form} | query,
        headers={} if accepts is None else {"accept-language": accepts},
    )
    answer = await repeat_while_busy(send)
    assert 200 == answer.http
    return answer


def text_of_pdf(content: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(BytesIO(content)).pages)


NAMES_OF_LINES = frozenset(
    {"Amount", "Refunded", "Currency", "Paid", "Paid to", "Paid with", "Paid by", "For", "Order", "Payment", "Receipt"}
)


def shown_in(answer: Answer) -> dict[str, str]:
    """Of a document, name and text of each line, as a reader without a browser finds them."""
    if answer.headers["content-type"] == "application/pdf":
        return lines_of_pdf(text_of_pdf(answer.content))
    return lines_of_page(answer.content.decode())


def lines_of_page(page: str) -> dict[str, str]:
    row = r'<tr><th scope="row">(.*?)</th><td dir="auto">(.*?)</td></tr>'
    return {name: unescape(text) for name, text in re.findall(row, page, re.DOTALL)}


def lines_of_pdf(text: str) -> dict[str, str]:
    shown: dict[str, str] = {}
    name = ""
    _title, *lines = re.split("\n(?:Characters that|Signature\n)", text)[0].split("\n")
    for line in lines:
        if line in NAMES_OF_LINES:
            name = line
        else:
            shown[name] = shown.get(name, "") + line
    return shown


def digits_of(text: str) -> str:
    return re.sub("[^0-9]", "", text)


# What a receipt says


async def test_the_details_of_a_paid_order_have_its_receipt(stack: Stack, orders: Orders, door: Door) -> None:
    order = await orders.in_state("paid")
    details = (await good(door, "GetOrder", {"orderId": order}, stack.token())).body
    receipt = details["receipt"]
    assert receipt == await receipt_of(stack, order, door)
    told = {name: value for name, value in receipt.items() if name not in ("signature", "generatedAt")}
    assert {
        "receiptId": details["latestPaymentId"],
        "receiptUrl": f"{stack.rest.url}/orders/{order}/receipt",
        "orderId": order,
        "paymentId": details["latestPaymentId"],
        "amount": "49.99",
        "currency": "GBP",
        "paymentMethod": "Visa ending 4242",
        "refundedAmount": "0.00",
        "seller": SELLER,
    } == told
    assert datetime.fromisoformat(receipt["generatedAt"]) >= datetime.fromisoformat(details["createdAt"])


@pytest.mark.parametrize("state", ["placed", "cancelled", "processing"])
async def test_an_order_that_is_not_paid_has_none(stack: Stack, orders: Orders, door: Door, state: str) -> None:
    order = await orders.in_state(state)
    assert "receipt" not in (await good(door, "GetOrder", {"orderId": order}, stack.token())).body


async def test_a_receipt_is_the_same_through_every_door(stack: Stack, orders: Orders) -> None:
    order = await orders.in_state("paid")
    receipts = [await receipt_of(stack, order, door) for door in (stack.rest, stack.grpc, stack.grpc_through_envoy)]
    assert receipts[:1] * 3 == receipts


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("5555555555554444", "Mastercard ending 4444"),
        ("378282246310005", "American Express ending 0005"),
        ("6011111111111117", "Discover ending 1117"),
    ],
)
async def test_a_card_is_called_by_its_brand(stack: Stack, number: str, expected: str) -> None:
    order = await paid(stack, number=number, cvc=...)
    assert expected == (await receipt_of(stack, order))["paymentMethod"]


async def test_a_bank_account_is_told_by_its_last_digits(stack: Stack, orders: Orders) -> None:
    order = await orders.placed()
    await good(stack.grpc, "PayOrder", {"orderId": order, "payment": bank_payment()}, stack.token())
    assert "Bank account ending 2345" == (await receipt_of(stack, order))["paymentMethod"]
    assert "Bank account ending 2345" == shown_in(await document_of(stack, order, "pdf"))["Paid with"]


async def test_what_was_given_back_is_shown_and_signed(stack: Stack, orders: Orders) -> None:
    order = await orders.in_state("paid")
    before = await receipt_of(stack, order)
    await good(stack.grpc, "CancelOrder", {"orderId": order}, stack.token())
    after = await until(lambda: receipt_of(stack, order), lambda receipt: receipt["refundedAmount"] == "49.99")
    assert before["signature"] != after["signature"]
    changed = {name for name in before if before[name] != after[name]}
    assert {"refundedAmount", "signature"} == changed
    for form in ("html", "pdf"):
        shown = shown_in(await document_of(stack, order, form))
        assert ("£49.99", "£49.99") == (shown["Amount"], shown["Refunded"])


# Who was paid


async def test_documents_say_who_was_paid_line_by_line(stack: Stack, orders: Orders) -> None:
    order = await orders.in_state("paid")
    assert SELLER == shown_in(await document_of(stack, order, "html"))["Paid to"]
    assert f"\nPaid to\n{SELLER}\nPaid with\n" in text_of_pdf((await document_of(stack, order, "pdf")).content)


async def test_a_receipt_without_a_seller_says_nothing_of_one(tmp_path: Path) -> None:
    async with serving(tmp_path, f"sqlite:///{tmp_path / 'payorder.db'}") as service:
        order = await service.new_order()
        await good(service.grpc, "PayOrder", {"orderId": order, "payment": payment()}, service.token())
        assert "seller" not in await service.read("GetReceipt", orderId=order)
        for form in ("html", "pdf"):
            rendered = await service.read("RenderReceipt", orderId=order, format=form)
            content = b64decode(rendered["data"])
            assert "Paid to" not in (content.decode() if form == "html" else text_of_pdf(content))


@pytest.mark.parametrize("line", [*HOSTILE, *(character * SELLER_LINE_LENGTH_MAX for character in "W漢א")], ids=len)
def test_a_seller_is_text_and_is_printed_whole(line: str) -> None:
    seller = "\n".join([line[:SELLER_LINE_LENGTH_MAX]] * SELLER_LINES_MAX)
    receipt = Receipt("r", "o", "p", Money(1, Currency("GBP", 2)), 0, CARD, None, NOON)
    lines = lines_of(SignedReceipt(receipt, "", seller, ""), [], paper.can_show)
    shown = lines_of_pdf(text_of_pdf(paper.make(lines, "").content))
    assert re.sub(r"\s", "", seller.replace("א", "[U+05D0]")) == re.sub(r"\s", "", shown["Paid to"])
    page = html_page.make(lines, "").content.decode()
    assert seller == lines_of_page(page)["Paid to"]
    assert not re.search("<(script|img|svg|b|font|a)[ >]", page)


# Documents


@pytest.mark.parametrize(
    ("amount", "currency", "locale", "expected"),
    [
        ("1249.99", "GBP", "en-GB", "£1,249.99"),
        ("1249.99", "GBP", "de-DE", "1.249,99\xa0£"),
        ("1249.99", "GBP", "ja-JP", "£1,249.99"),
        ("1250", "JPY", "en-GB", "JP¥1,250"),
        ("1250", "JPY", "de-DE", "1.250\xa0¥"),
        ("1250", "JPY", "ja-JP", "￥1,250"),
        ("1.234", "KWD", "en-GB", "KWD\xa01.234"),
        ("1.234", "KWD", "de-DE", "1,234\xa0KWD"),
        # To CLDR the afghani has no digits after the point.
        ("99.99", "AFN", "en-GB", "AFN\xa099.99"),
    ],
)
async def test_documents_say_the_figures_of_the_json(
    stack: Stack, amount: str, currency: str, locale: str, expected: str
) -> None:
    order = await paid(stack, {"totalAmount": amount, "currency": currency})
    receipt = await receipt_of(stack, order)
    assert (amount, currency) == (receipt["amount"], receipt["currency"])
    for form in ("html", "pdf"):
        shown = shown_in(await document_of(stack, order, form, locale=locale))
        assert expected.replace("\xa0", " ") == shown["Amount"].replace("\xa0", " ")
        assert digits_of(receipt["amount"]) == digits_of(shown["Amount"])
        assert digits_of(receipt["refundedAmount"]) == digits_of(shown["Refunded"])
        assert (currency, receipt["paymentMethod"]) == (shown["Currency"], shown["Paid with"])
        assert (order, receipt["paymentId"]) == (shown["Order"], shown["Payment"])
        assert receipt["receiptId"] == shown["Receipt"]
        time = datetime.fromisoformat(receipt["generatedAt"])
        written = format_datetime(time, "long", locale=Locale.parse(locale, sep="-"))
        assert written == shown["Paid"].replace("\xa0", " ")


@pytest.mark.parametrize(
    ("accepts", "locale", "expected"),
    [
        (None, None, "£49.99"),
        ("de-DE,de;q=0.9,en;q=0.8", None, "49,99 £"),
        ("en;q=0.1, de;q=0.9", None, "49,99 £"),
        ("de;q=0, en-GB;q=0.5", None, "£49.99"),
        ("tlh, *;q=0.1", None, "£49.99"),
        ("de;q=leak, ../../de, \u00e9, en", None, "£49.99"),
        ("de-DE", "en-GB", "£49.99"),
        ("de-DE", "tlh", "49,99 £"),
        (None, "de-LU", "49,99 £"),
        (",".join(["x"] * 1000), None, "£49.99"),
    ],
)
async def test_a_reader_chooses_how_amounts_are_written(
    stack: Stack, accepts: str | None, locale: str | None, expected: str
) -> None:
    order = await paid(stack)
    query = {} if locale is None else {"locale": locale}
    shown = shown_in(await document_of(stack, order, "html", accepts=accepts, **query))
    assert expected == shown["Amount"].replace("\xa0", " ")


async def test_documents_are_named_by_us_and_cannot_do_anything(stack: Stack, orders: Orders) -> None:
    order = await orders.in_state("paid")
    receipt = await receipt_of(stack, order)
    for form, kind in (("html", "text/html; charset=utf-8"), ("pdf", "application/pdf")):
        headers = (await document_of(stack, order, form)).headers
        assert kind == headers["content-type"]
        assert f'inline; filename="receipt-{receipt["receiptId"]}.{form}"' == headers["content-disposition"]
        assert ("nosniff", "no-store") == (headers["x-content-type-options"], headers["cache-control"])
        assert "no-referrer" == headers["referrer-policy"]
    policy = (await document_of(stack, order, "html")).headers["content-security-policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; base-uri 'none'; form-action 'none'; "
        r"frame-ancestors 'none'",
        policy,
    )


async def test_a_document_over_grpc_is_its_bytes_and_their_type(stack: Stack, orders: Orders) -> None:
    order = await orders.in_state("paid")
    request = {"orderId": order, "format": "pdf"}
    for door in (stack.grpc, stack.grpc_through_envoy):
        answer = await good(door, "RenderReceipt", request, stack.token())
        assert "application/pdf" == answer.body["contentType"]
        assert "content-disposition" not in answer.headers


async def test_the_same_receipt_is_printed_as_the_same_bytes(stack: Stack, orders: Orders) -> None:
    order = await orders.in_state("paid")
    first, second = [await document_of(stack, order, "pdf") for _ in range(2)]
    assert first.content == second.content
    assert first.content.startswith(b"%PDF-")


@pytest.mark.parametrize("text", HOSTILE)
async def test_texts_of_callers_are_texts_and_nothing_else(stack: Stack, text: str) -> None:
    order = await paid(stack, {"description": text}, name=text)
    answer = await document_of(stack, order, "html")
    assert [text, text] == [shown_in(answer)[name] for name in ("Paid by", "For")]
    page = answer.content.decode()
    assert 1 == page.count("<style>")
    assert not re.search("<(?!/?(?:html|head|meta|title|style|body|main|h1|h2|table|tr|th|td|p)[ >]|!DOCTYPE)", page)
    shown = shown_in(await document_of(stack, order, "pdf"))
    for name in ("Paid by", "For"):
        assert re.sub(r"\s", "", text) == re.sub(r"\s", "", shown[name])
    printed = (await document_of(stack, order, "pdf")).content
    # Fonts and pages are compressed, and have any bytes.
    objects = re.sub(b"stream\r?\n.*?endstream", b"", printed, flags=re.DOTALL)
    assert not re.search(b"/(URI|JavaScript|JS|OpenAction|Launch|EmbeddedFile)", objects)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Zoë Łukasz Žofie", None),
        ("山田太郎 ひらがな カタカナ", None),
        ("简体字 龙", None),
        ("繁體字 龍", None),
        ("한국어", None),
        ("Αθηνα Привет", None),
        ("Żółć", "[U+017B]ółć"),
        ("\N{RECEIPT} \N{OGHAM LETTER BEITH}", "[U+1F9FE] [U+1681]"),
        ("שלום", "[U+05E9][U+05DC][U+05D5][U+05DD]"),
    ],
)
async def test_a_pdf_shows_every_text_or_says_which_characters_it_has_no_font_for(
    stack: Stack, text: str, expected: str | None
) -> None:
    order = await paid(stack, {"description": text}, name=text)
    answer = await document_of(stack, order, "pdf")
    shown = shown_in(answer)
    assert (expected or text) == shown["For"] == shown["Paid by"]
    assert (expected is not None) == ("no font for" in text_of_pdf(answer.content))
    assert text in (await document_of(stack, order, "html")).content.decode()


@pytest.mark.parametrize("text", ["W" * 500, "漢" * 166, "\N{RECEIPT}" * 125, "a " * 249 + "a"], ids=len)
async def test_the_longest_text_is_printed_whole(stack: Stack, text: str) -> None:
    order = await paid(stack, {"description": text}, name=text[:200])
    shown = shown_in(await document_of(stack, order, "pdf"))
    expected = text.replace("\N{RECEIPT}", "[U+1F9FE]")
    assert re.sub(r"\s", "", expected) == re.sub(r"\s", "", shown["For"])


@pytest.mark.parametrize("locale", LOCALES)
def test_whatever_a_locale_writes_can_be_printed(locale: str) -> None:
    for month, currency in product(range(1, 13), ("GBP", "EUR", "JPY", "INR", "KRW", "CNY")):
        time = NOON.replace(month=month, day=month + 10, hour=month + 8)
        receipt = Receipt("r", "o", "p", Money(123456789, Currency(currency, 2)), 0, CARD, None, time)
        signed = SignedReceipt(receipt, "", None, "")
        lines = [
            line for line in lines_of(signed, [locale.replace("_", "-")], paper.can_show) if line.name != "Paid by"
        ]
        assert "[U+" not in "".join(paper.to_markup(line.text) for line in lines)


async def test_the_json_may_be_asked_for_by_its_name(stack: Stack, orders: Orders) -> None:
    order = await orders.in_state("paid")
    answer = await stack.rest.send("GET", f"/orders/{order}/receipt?format=json", token=stack.token())
    assert (200, await receipt_of(stack, order)) == (answer.http, answer.body)


@pytest.mark.parametrize(
    "query", ["format=", "format=xml", "format=pdf&format=html", "locale=de", "format=pdf&x=1", "format=json&x=1"]
)
async def test_a_form_that_is_not_offered_is_refused(stack: Stack, orders: Orders, query: str) -> None:
    order = await orders.in_state("paid")
    answer = await stack.rest.send("GET", f"/orders/{order}/receipt?{query}", token=stack.token())
    assert answer.http in (400, 422)
    assert f"/orders/{order}/receipt" == answer.body["instance"]


# In a browser


@pytest.fixture(scope="module")
async def page(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    program = installed()
    if program is None:
        pytest.skip(f"there is no browser: none of {', '.join(NAMES)}")
    async with browser(program, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


async def show(page: Page, stack: Stack, order: str, locale: str) -> None:
    headers = {"authorization": f"Bearer {stack.token()}", "accept-language": locale}
    await page.command("Network.enable")
    await page.command("Network.setExtraHTTPHeaders", headers=headers)
    for _ in range(5):
        await page.command("Page.navigate", url=f"{stack.rest.url}/orders/{order}/receipt?format=html")
        # Stands in a receipt, and in a refusal as busy too.
        await page.shows(f"document.body.innerText.includes('{order}')")
        if await page.evaluate("Boolean(document.querySelector('#signature'))"):
            return


async def lines_shown(page: Page) -> dict[str, str]:
    text = await page.evaluate("[...document.querySelectorAll('th, td')].map(cell => cell.innerText).join('\\u0000')")
    cells: Sequence[str] = text.split("\0")
    return dict(pair for place, pair in enumerate(pairwise(cells)) if place % 2 == 0)


@pytest.mark.parametrize("locale", ["en-GB", "de-DE", "ja-JP"])
async def test_a_browser_shows_the_figures_of_the_json(stack: Stack, page: Page, locale: str) -> None:
    text = " ".join(HOSTILE)
    order = await paid(stack, {"totalAmount": "1.234", "currency": "KWD", "description": text}, name="山田 <b>")
    receipt = await receipt_of(stack, order)
    await show(page, stack, order, locale)
    shown = await lines_shown(page)
    assert digits_of(receipt["amount"]) == digits_of(shown["Amount"])
    assert (text, "山田 <b>") == (shown["For"], shown["Paid by"])
    assert (receipt["receiptId"], order) == (shown["Receipt"], shown["Order"])
    assert receipt["signature"] == await page.evaluate("document.querySelector('#signature').innerText")
    assert SELLER == shown["Paid to"]
    # The style of the page is the one that its policy allows, and nothing was loaded beside it.
    assert "collapse" == await page.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse")
    assert 0 == await page.evaluate("performance.getEntriesByType('resource').length")
    assert 0 == await page.evaluate("document.scripts.length + document.images.length")
