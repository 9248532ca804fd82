"""No card number, account number or CVC that was sent during the run is left anywhere. Last of all: tests/conftest.py.

Looked through are all files of every stack and database that the run started, the values of every column, and every
answer that came back. That the search can find is shown by planting each form where it looks.
"""

import asyncio
import base64
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from payorder.local.postgres import EmbeddedPostgres
from support.leaks import LEDGER, Search, leaks_below
from support.orders import Orders
from support.requests import APPROVED, BANK_ACCOUNT, bank_payment, payment
from support.stack import Stack

AMEX, IBAN = "378282246310005", "DE89370400440532013000"
ACCOUNT = BANK_ACCOUNT["number"]


def search_of_the_run() -> Search:
    assert {APPROVED, AMEX, ACCOUNT, IBAN[2:]} <= LEDGER.numbers, "the doors have not written down what they sent"
    assert {"123", "7391"} <= LEDGER.cvcs
    return Search(LEDGER.numbers, LEDGER.cvcs)


async def test_nothing_is_left_by_a_stack_that_is_still_running(stack: Stack) -> None:
    """While it runs there are also a write-ahead log and what has not been flushed."""
    sources = (
        payment(),
        payment(number=AMEX, cvc="7391"),
        bank_payment(),
        bank_payment(number=IBAN, sortCode=..., country="de"),
    )
    for door in (stack.rest, stack.grpc, stack.grpc_through_envoy):
        for body in sources:
            request = {"orderId": await Orders(stack).placed(), "payment": body}
            assert "OK" == (await door.call("PayOrder", request, token=stack.token())).code
    search = search_of_the_run()
    assert {} == leaks_below(stack.data, search)
    assert set() == search.in_values(await values_of(stack.database_url))


async def test_nothing_is_left_in_any_file_of_the_run(postgres: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(postgres.url())
    await connection.execute("CHECKPOINT")
    await connection.close()
    search = search_of_the_run()
    names = [path.name for folder in LEDGER.folders for path in folder.rglob("*") if path.is_file()]
    for expected in (
        "payorder.db",
        "service.log",
        "envoy.log",
        "envoy.yaml",
        "migrate.log",
        "postgres.log",
        "PG_VERSION",
    ):
        assert expected in names
    assert {} == {str(folder): found for folder in LEDGER.folders if (found := leaks_below(folder, search))}


def test_nothing_is_left_in_any_answer() -> None:
    search = search_of_the_run()
    assert len(LEDGER.answers) > 20
    assert set() == search.in_bytes(b"\n".join(LEDGER.answers))
    assert set() == search.in_json_lines(b"\n".join(LEDGER.answers))


async def values_of(url: str) -> list[Any]:
    """Every value of every row of every table."""
    if url.startswith("sqlite"):
        return _sqlite_values(url.removeprefix("sqlite:///"))
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [row for table in tables for row in await connection.fetch(f'SELECT * FROM "{table[0]}"')]  # noqa: S608
    finally:
        await connection.close()
    return [value for row in rows for value in row.values()]


def _sqlite_values(path: str) -> list[Any]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        rows = [row for table in tables for row in connection.execute(f'SELECT * FROM "{table[0]}"')]  # noqa: S608
    finally:
        connection.close()
    return [value for row in rows for value in row]


async def test_nothing_is_left_in_a_backup(stack: Stack, postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """As operators make them: VACUUM INTO, and pg_dump."""
    if stack.database_url.startswith("sqlite"):
        connection = sqlite3.connect(stack.database_url.removeprefix("sqlite:///"))
        connection.execute("VACUUM INTO ?", [str(tmp_path / "backup")])
        connection.close()
    else:
        pg_dump = Path(postgres.command[0]).with_name("pg_dump")
        dumping = await asyncio.create_subprocess_exec(pg_dump, stack.database_url, "-f", tmp_path / "backup")
        assert 0 == await dumping.wait()
    assert (tmp_path / "backup").stat().st_size > 10_000
    assert {} == leaks_below(tmp_path, search_of_the_run())


async def test_a_core_dump_would_hold_nothing(stack: Stack) -> None:
    limits = await asyncio.to_thread(Path(f"/proc/{stack.service_process_id}/limits").read_text)
    assert ["0", "0"] == limits.partition("Max core file size")[2].split()[:2]


PLANTED = Search(["4242424242424242", "00012345", "89370400440532013000"], ["7391", "123"])

FORMS = {
    "plain": ("plain", lambda number: number.encode()),
    "inside other digits": ("plain", lambda number: b"99" + number.encode() + b"1"),
    "spaced": ("grouped", lambda number: " ".join(groups(number)).encode()),
    "dashed": ("grouped", lambda number: "-".join(groups(number)).encode()),
    "in a form": ("grouped", lambda number: "+".join(groups(number)).encode()),
    "spaced and percent-encoded": ("grouped", lambda number: "%20".join(groups(number)).encode()),
    "percent-encoded": ("percent", lambda number: "".join(f"%{ord(digit):x}" for digit in number).encode()),
    "hexadecimal": ("hexadecimal", lambda number: number.encode().hex().encode()),
    "hexadecimal in a bytea": ("hexadecimal", lambda number: b"\\x7b22" + number.encode().hex().encode() + b"22"),
    "UTF-16, little end first": ("utf-16", lambda number: number.encode("utf-16-le")),
    "UTF-16, big end first": ("utf-16", lambda number: number.encode("utf-16-be")),
    "base64": ("base64", lambda number: base64.b64encode(number.encode())),
    "base64 after one byte": ("base64", lambda number: base64.b64encode(b"x" + number.encode())),
    "base64 after two bytes": ("base64", lambda number: base64.b64encode(b'{"' + number.encode() + b'"}')),
    "base64 without padding": ("base64", lambda number: base64.urlsafe_b64encode(number.encode()).rstrip(b"=")),
}
# Of a large file, how much on each side.
AROUND = 1 << 18
PANS_ONLY = {"inside other digits"}


def groups(number: str) -> list[str]:
    return [number[start : start + 4] for start in range(0, len(number), 4)]


@pytest.mark.parametrize("number", ["4242424242424242", "00012345", "89370400440532013000"])
@pytest.mark.parametrize(("form", "kind", "encode"), [(form, *rest) for form, rest in FORMS.items()], ids=list(FORMS))
def test_the_search_finds_a_number_in_every_form(
    form: str, kind: str, encode: Callable[[str], bytes], number: str
) -> None:
    for around in (b"", b"name=", b"\x00\x13", b'"'):
        found = PLANTED.in_bytes(around + encode(number) + around[::-1])
        assert (kind in found) == (len(number) > 8 or form not in PANS_ONLY)


@pytest.mark.parametrize(
    "text",
    [
        b'{"cvc":"7391"}',
        b"cvc=123",
        b"CVC: 123",
        b"cvc='123'",
        b'{\\"cvc\\": \\"123\\"}',
        b'cvc\\":\\"7391',
        b"\x1a\x0f378282246310005\x22\x047391\x28\x0c\x30\xe9\x0f",
    ],
)
def test_the_search_finds_a_cvc_beside_its_name_and_in_protobuf(text: bytes) -> None:
    assert "cvc" in PLANTED.in_bytes(b"before " + text + b" after")


@pytest.mark.parametrize(
    "text",
    [
        b"cvc=123&number=" + b"x" * 40,
        b"cvc123" + b"x" * 40,
        b"/ORDERS/01A203AD-06B3-71AF-AE2E-62E035DD6836/cvc/123",
        b'"B0TJxkD8sQm3vYcUeWnZaR5hLgKf7iPoNyV2tMb1CvC":"123"',
        b"request_id_7f3a_PaymentSource_exp_year_2030_cvc_123",
    ],
)
def test_the_search_finds_a_cvc_beside_its_name_in_a_long_word_that_is_not_random(text: bytes) -> None:
    assert "cvc" in PLANTED.in_bytes(text)


@pytest.mark.parametrize("letters", ["cvc123", "CvC7391", "cVC-123", "cvc_/+123"])
def test_the_search_finds_no_cvc_in_the_random_letters_of_keys_and_signatures(letters: str) -> None:
    for place in (0, 1, 20, 42, 43):
        key = "B0TJxkD8sQm3vYcUeWnZaR5hLgKf7iPoNyV2tMb1dEq"
        text = f'"x": "{key[:place]}{letters}{key[place:]}",'
        assert set() == PLANTED.in_bytes(text.encode())


def test_the_search_finds_nothing_where_nothing_is() -> None:
    innocent = (
        b'{"number":"************4242","sortCode":"000123","expYear":2025,"id":"01a203ad-06b3-71af-ae2e-62e035dd6836",'
        b'"code":"incorrect_cvc","amount":"49.99","at":1795356908123,"field":"source.cvc","message":"has three digits"}'
    )
    assert set() == PLANTED.in_bytes(innocent)
    assert set() == PLANTED.in_values([innocent.decode(), 123, 7391, None, b"123", "1234"])


@pytest.mark.parametrize("value", ["7391", '{"a":["7391"]}', '{"7391":1}'])
def test_the_search_finds_a_cvc_as_a_whole_value(value: str) -> None:
    assert {"cvc"} == PLANTED.in_values(["x", value])
    assert {"cvc"} == PLANTED.in_json_lines(b'{"event":"call"}\n' + b'{"x":{"y":' + _quoted(value) + b"}}\n")


def _quoted(value: str) -> bytes:
    return b'"%b"' % value.encode() if value == "7391" else value.encode()


@pytest.mark.parametrize("form", FORMS)
async def test_a_number_planted_in_a_copy_of_any_file_is_found(stack: Stack, tmp_path: Path, form: str) -> None:
    """In the middle of the log, of the configuration and of the database file, with what would lie around it there."""
    kind, encode = FORMS[form]
    planted = encode("4242424242424242")
    copied = [
        path for path in stack.data.rglob("*") if path.is_file() and path.suffix in (".log", ".yaml", ".db", ".db-wal")
    ]
    for path in copied:
        data = path.read_bytes()
        middle = len(data) // 2
        before, after = data[max(0, middle - AROUND) : middle], data[middle : middle + AROUND]
        (tmp_path / path.name).write_bytes(before + b"\n" + planted + b"\n" + after)
    found = leaks_below(tmp_path, PLANTED)
    assert {path.name for path in copied} == set(found)
    assert all(kind in kinds for kinds in found.values())


def test_a_number_or_cvc_planted_in_a_row_is_found(tmp_path: Path) -> None:
    path = tmp_path / "payorder.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE payments (source_masked TEXT, note TEXT)")
    connection.execute("INSERT INTO payments VALUES ('{\"cvv\":\"7391\"}', 'paid with 4242-4242-4242-4242')")
    connection.commit()
    assert {"payorder.db-wal": {"grouped"}} == leaks_below(tmp_path, PLANTED)
    assert {"cvc"} == PLANTED.in_values(_sqlite_values(str(path)))
    connection.close()
    assert {"payorder.db": {"grouped"}} == leaks_below(tmp_path, PLANTED)


def test_a_secret_of_a_webhook_planted_in_a_file_is_found(tmp_path: Path) -> None:
    secret = b"whsec_" + base64.b64encode(bytes(range(32)))
    (tmp_path / "payorder.db").write_bytes(b"\0" * 100 + secret + b"\0")
    assert {"payorder.db": {"webhook secret"}} == leaks_below(tmp_path, PLANTED)


async def test_a_number_planted_in_postgresql_is_found(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """In a copy of its files: what is written to the server itself would stay in its log."""
    [data] = [folder / "data" for folder in LEDGER.folders if str(folder / "data") in postgres.command]
    segments = sorted((data / "pg_wal").glob("0*"))
    copy = tmp_path / segments[-1].name
    written = segments[-1].read_bytes()
    end = len(written.rstrip(b"\0"))
    copy.write_bytes(written[:end] + b"\x0b4242424242424242" + written[end:])
    assert {copy.name: {"plain"}} == leaks_below(tmp_path, PLANTED)
