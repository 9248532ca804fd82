"""`./dev up` as its user has it: a command, what it prints, and nothing that is left behind."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
from asyncio.subprocess import PIPE
from pathlib import Path

import jwt
import pytest

from support.requests import payment
from support.service import until
from support.stack import free_port
from support.up import LOCAL, ROOT, Running, alive, documented_order, ended, environment, rest, shell, start, up


async def left_of(running: Running) -> list[int]:
    """Which of its processes run after a while."""
    return await until(lambda: alive(running.descendants), lambda left: not left)


def commands_of(printed: str) -> dict[str, str]:
    """The printed commands, by the first words of the line above them."""
    found: dict[str, str] = {}
    title = ""
    for line in printed.splitlines():
        if re.match("  [A-Z]", line):
            title = " ".join(line.split()[:4]).rstrip(":")
            found[title] = ""
        elif line.startswith("    ") and title:
            found[title] += line + "\n"
    return found


async def test_its_audit_log_is_sealed_with_a_key_of_its_own_and_can_be_verified(running: Running) -> None:
    await documented_order(running)
    key, database = running.data / "audit.pem", running.data / "payorder.db"
    assert 0o600 == key.stat().st_mode & 0o777
    assert '"event":"audit log not sealed"' not in (running.data / "log" / "service.log").read_text()
    settings = f"PAYORDER_ENV=development PAYORDER_DATABASE_URL=sqlite:///{database} PAYORDER_AUDIT_SIGNING_KEY={key}"
    status, printed = await shell(f"{settings} PAYORDER_ISSUER={running.issuer_url} payorder audit verify")
    assert (0, "nothing is wrong") == (status, printed.splitlines()[-1])


async def test_its_receipts_are_signed_with_a_key_that_stays_and_say_where_they_are(running: Running) -> None:
    assert 0o600 == (running.data / "receipts.pem").stat().st_mode & 0o777
    assert "a key of this process" not in (running.data / "log" / "service.log").read_text()
    paid = await documented_order(running)
    assert f"{running.url}/orders/{paid['id']}/receipt" == paid["receipt"]["receiptUrl"]


async def test_it_says_that_it_is_ready_and_what_to_paste(running: Running) -> None:
    assert f"ready {running.url}" == running.printed.splitlines()[0]
    assert [
        "A token for alice",
        "A token for ada,",
        "A token by OAuth",
        "Create an order and",
        "Pay it (REST)",
        "Create another and pay",
    ] == list(commands_of(running.printed))[:6]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl; the next test sends the same")
async def test_the_printed_commands_for_rest_pay_an_order(running: Running) -> None:
    commands = commands_of(running.printed)
    script = [commands[title] for title in ("A token for alice", "Create an order and", "Pay it (REST)")]
    status, shown = await shell("\n".join(script))
    assert 0 == status
    assert "HTTP/1.1 201 Created" in shown
    assert '"status":"succeeded"' in shown
    assert '"number":"************4242"' in shown


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_the_commands_of_the_readme_pay_orders_by_rest_and_by_grpc(running: Running) -> None:
    _, text = (ROOT / "README.md").read_text().split("## Pay an order over REST")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    script = "".join(block for language, block in blocks if not language and not block.startswith("HTTP"))
    script = script.replace("http://127.0.0.1:8080", running.url).replace("http://127.0.0.1:50051", running.grpc_url)
    script = script.replace("--sub alice", f"--sub alice --data {running.data}")
    status, shown = await shell(script)
    assert (0, 1) == (status, shown.count("HTTP/1.1 201 Created"))
    assert ['"status":"succeeded"', '"status": "succeeded"'] == re.findall('"status": ?"succeeded"', shown)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_the_printed_command_for_a_token_by_password_gives_one(running: Running) -> None:
    status, shown = await shell(commands_of(running.printed)["A token for ada,"])
    assert (0, {"token", "expiresAt"}) == (status, set(json.loads(shown)))


async def test_the_printed_commands_for_grpc_pay_an_order(running: Running) -> None:
    commands = commands_of(running.printed)
    create, pay = commands["Create another and pay"].split("    .venv/bin/buf curl")[1:]
    token = commands["A token for alice"]
    status, created = await shell(f"{token}\n.venv/bin/buf curl {create}")
    assert (0, "placed") == (status, json.loads(created)["status"])
    pay = pay.replace("<its id>", json.loads(created)["id"])
    status, paid = await shell(f"{token}\n.venv/bin/buf curl {pay}")
    assert (0, "succeeded") == (status, json.loads(paid)["status"])


async def test_envoy_speaks_grpc_as_the_service_itself_does(running: Running) -> None:
    for url in (running.url, running.grpc_url):
        status, shown = await shell(f".venv/bin/buf curl --protocol grpc --http2-prior-knowledge --list-services {url}")
        assert (0, True) == (status, "payments.v1.PaymentService" in shown.splitlines())


async def test_a_token_is_the_last_line_and_lasts_less_than_a_day(running: Running) -> None:
    options = ("--sub", "bob", "--scope", "read:orders", "--data", str(running.data))
    process = await asyncio.create_subprocess_exec(LOCAL, "token", *options, env=environment(), stdout=PIPE)
    status, output, _ = await ended(process)
    claims = jwt.decode(output.splitlines()[-1], options={"verify_signature": False})
    assert (0, "bob", "read:orders", "payorder") == (status, claims["sub"], claims["scope"], claims["aud"])
    assert 0 < claims["exp"] - claims["iat"] < 24 * 60 * 60


@pytest.mark.parametrize("option", ["--port", "--grpc-port", "--issuer-port"])
async def test_a_taken_port_is_told_in_one_line(running: Running, tmp_path: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        ports = {each: free_port() for each in ("--port", "--grpc-port", "--issuer-port")} | {option: number}
        status, output, error = await ended(await start(tmp_path, *ports.values()))
    assert (1, "", f"payorder: port {number} is taken: choose another with {option}\n") == (status, output, error)


async def test_a_folder_in_use_is_told_in_one_line(running: Running) -> None:
    status, output, error = await ended(await start(running.data, free_port(), free_port(), free_port()))
    told = f"payorder: {running.data} is in use by another ./dev up: choose another with --data\n"
    assert (1, "", told) == (status, output, error)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--database-url", "mysql://localhost/x"), "payorder: "),
        (("--database-url", "sqlite:////nowhere/payorder.db"), "payorder: "),
        (("--database-url", "sqlite:///x.db", "--postgres"), "Usage: "),
        (("--port", "0x50"), "Usage: "),
    ],
)
async def test_options_that_cannot_be_are_told(tmp_path: Path, options: tuple[str, ...], expected: str) -> None:
    status, output, error = await ended(await start(tmp_path, free_port(), free_port(), free_port(), *options))
    assert (True, "", expected) == (status != 0, output, error[: len(expected)])
    assert "Traceback" not in error


async def test_production_does_not_start_with_its_issuer(tmp_path: Path) -> None:
    webhooks = {"webhook_secret_keys": "k" * 43 + "=", "webhook_ports": "443", "public_url": "https://pay.example"}
    settings = {"env": "production", "processor": "sandbox", "fingerprint_key": "f" * 32} | webhooks
    process = await start(tmp_path, free_port(), free_port(), free_port(), **settings)
    assert 1 == (await ended(process))[0]
    told = (tmp_path / "log" / "migrate.log").read_text().splitlines()
    assert ["PAYORDER_ISSUER: must be https URLs, unless PAYORDER_JWKS is given"] == told[1:]


async def test_ctrl_c_ends_everything_and_orders_are_kept(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("up") / "data"
    async with up(data) as first:
        order = await documented_order(first)
        assert 0 == await first.end(signal.SIGINT)
        assert [] == await left_of(first)
    async with up(data) as second:
        read = await rest(second, "GET", f"/orders/{order['id']}")
        assert ("approved", order["latestPaymentId"]) == (read["status"], read["latestPaymentId"])
        again = await rest(second, "POST", f"/orders/{order['id']}/payment", payment())
        assert ("ORDER_ALREADY_PAID", order["latestPaymentId"]) == (again["reason"], again["paymentId"])


async def test_a_terminal_that_closes_ends_everything(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with up(tmp_path_factory.mktemp("up") / "data") as running:
        assert 0 == await running.end(signal.SIGHUP)
        assert [] == await left_of(running)


async def test_a_service_that_dies_ends_everything_and_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with up(tmp_path_factory.mktemp("up") / "data") as running:
        (service,) = [each for each in running.descendants if b"payorder\0serve" in command_line(each)]
        os.kill(service, signal.SIGKILL)
        status, _, error = await ended(running.process)
        assert (1, f"payorder: payorder ended with status -9; see {running.data}/log/service.log\n") == (status, error)
        assert [] == await left_of(running)


def command_line(process_id: int) -> bytes:
    return Path(f"/proc/{process_id}/cmdline").read_bytes()


@pytest.mark.parametrize("options", [(), ("--postgres",)], ids=["sqlite", "postgres"])
async def test_no_process_outlives_a_supervisor_that_was_killed(
    tmp_path_factory: pytest.TempPathFactory, options: tuple[str, ...]
) -> None:
    async with up(tmp_path_factory.mktemp("up") / "data", *options) as running:
        assert len(running.descendants) >= 2
        assert -signal.SIGKILL == await running.end(signal.SIGKILL)
        assert [] == await left_of(running)


async def test_with_postgres_the_documented_request_is_paid_and_none_is_left(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data = tmp_path_factory.mktemp("up") / "data"
    async with up(data, "--postgres") as running:
        assert any(b"postgres" in command_line(each) for each in running.descendants)
        assert "approved" == (await documented_order(running))["status"]
        assert not (data / "payorder.db").exists()
        assert 0 == await running.end(signal.SIGINT)
        assert [] == await left_of(running)
    assert "database system is shut down" in (data / "log" / "postgres.log").read_text()
