"""`payorder serve --workers`: several processes on one port, which start, drain and end as one."""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from conftest import ENGINES, new_database
from payorder.cli.workers import reserve
from payorder.config import SettingsFault
from payorder.local.issuer import Issuer
from payorder.local.postgres import EmbeddedPostgres
from payorder.local.up import Up, service_environment
from support.doors import GrpcDoor
from support.leaks import LEDGER
from support.requests import payment
from support.service import Service, migrate, until
from support.stack import WITHOUT_LIMITS, without_test_settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads the connections of one port")

# That all of so many connections go to one of two workers happens once in a million runs.
CONNECTIONS = 20
WORKERS = {1, 2}


@dataclass(frozen=True, slots=True)
class Running:
    """`payorder serve` as a process, with what it and its workers have logged."""

    process: Process
    data: Path
    environment: dict[str, str]

    def lines(self, event: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self.text().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == event]

    def text(self) -> str:
        return (self.data / "serve.log").read_text()

    def worker_process_ids(self) -> dict[int, int]:
        """Worker -> its latest process."""
        return {line["worker"]: line["pid"] for line in self.lines("worker started")}

    async def wait_for(self, event: str, count: int) -> list[dict[str, Any]]:
        async def read() -> list[dict[str, Any]]:
            return self.lines(event)

        lines = await until(read, lambda lines: len(lines) >= count or self.process.returncode is not None)
        assert len(lines) >= count, self.text()
        return lines

    async def end(self, number: signal.Signals) -> int:
        """Its exit status after that signal."""
        self.process.send_signal(number)
        async with asyncio.timeout(45):
            return await self.process.wait()

    @asynccontextmanager
    async def doors(self, count: int) -> AsyncIterator[list[Service]]:
        """Each over a connection of its own, which one worker has."""
        port = self.lines("serving")[0]["port"]
        address, options = f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]
        async with AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
                for _ in range(count)
            ]
            yield [Service(address, GrpcDoor(channel), Issuer(self.data / "issuer"), self.data) for channel in channels]


@asynccontextmanager
async def serve(data: Path, *, workers: int = 2, database_url: str = "", **settings: str) -> AsyncIterator[Running]:
    """`payorder serve --workers`, over SQLite and on a free port if nothing else is said."""
    url = database_url or f"sqlite:///{data / 'payorder.db'}"
    await migrate(url)
    wanted = Up(0, 0, data, url, with_postgres=False)
    environment = without_test_settings(service_environment(wanted, url, Issuer(data / "issuer")))
    settings = {"listen": "127.0.0.1:0", **WITHOUT_LIMITS, **settings}
    environment |= {f"PAYORDER_{name.upper()}": value for name, value in settings.items()}
    running = Running(await start(data, environment, workers), data, environment)
    try:
        yield running
    finally:
        if running.process.returncode is None:
            await running.end(signal.SIGTERM)


@asynccontextmanager
async def serving(data: Path, **settings: str) -> AsyncIterator[Running]:
    """Two workers that both serve."""
    async with serve(data, **settings) as running:
        await running.wait_for("serving", 2)
        yield running


async def start(data: Path, environment: dict[str, str], workers: int) -> Process:
    command = (sys.executable, "-m", "payorder", "serve", "--workers", str(workers))
    LEDGER.folders.append(data)
    with (data / "serve.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)


async def ended(process_id: int) -> bool:
    """Whether there is no such process; one that nobody has collected yet (state Z) has ended, too."""
    return not is_running(Path(f"/proc/{process_id}/stat"))


def is_running(stat: Path) -> bool:
    return stat.exists() and " Z " not in stat.read_text()


async def test_both_workers_take_calls(tmp_path: Path) -> None:
    async with serving(tmp_path) as running, running.doors(CONNECTIONS) as doors:
        for door in doors:
            order = await door.new_order()
            paid = await door.grpc.call("PayOrder", {"orderId": order, "payment": payment()}, token=door.token())
            assert "succeeded" == paid.body["status"]
        assert WORKERS == {line["worker"] for line in running.lines("call")}


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_order_that_is_paid_at_both_workers_is_paid_once(
    engine: str, tmp_path: Path, postgres: EmbeddedPostgres
) -> None:
    url = await new_database(engine, tmp_path, postgres)
    async with serving(tmp_path, database_url=url) as running, running.doors(CONNECTIONS) as doors:
        order = await doors[0].new_order()
        pay = {"orderId": order, "payment": payment()}
        answers = await asyncio.gather(*(door.grpc.call("PayOrder", pay, token=door.token()) for door in doors))
        assert 1 == sum(answer.code == "OK" for answer in answers)
        assert WORKERS == {line["worker"] for line in running.lines("call")}
        assert 1 == changes(running, "payment.succeeded")


async def test_sigterm_drains_every_worker(tmp_path: Path) -> None:
    slow = {"processor_options": '{"latency_seconds": "1"}'}
    async with serving(tmp_path, **slow) as running, running.doors(CONNECTIONS) as doors:
        orders = [await door.new_order() for door in doors]
        paying = [
            asyncio.create_task(
                door.grpc.call("PayOrder", {"orderId": order, "payment": payment()}, token=door.token())
            )
            for door, order in zip(doors, orders, strict=True)
        ]
        await until(lambda: claimed(running), lambda count: count == CONNECTIONS)
        assert 0 == await running.end(signal.SIGTERM)
        assert {"succeeded"} == {answer.body["status"] for answer in await asyncio.gather(*paying)}
        assert [0, 0] == [line["unfinished_payments"] for line in running.lines("stopped")]


async def claimed(running: Running) -> int:
    return changes(running, "payment.processing")


def changes(running: Running, what: str) -> int:
    return sum(line["what"] == what for line in running.lines("change"))


async def test_a_worker_that_is_killed_comes_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        os.kill(running.worker_process_ids()[1], signal.SIGKILL)
        await running.wait_for("serving", 3)
        (ended_line,) = running.lines("worker ended")
        assert (1, -signal.SIGKILL) == (ended_line["worker"], ended_line["status"])
        async with running.doors(CONNECTIONS) as doors:
            for door in doors:
                await door.new_order()
        assert WORKERS == {line["worker"] for line in running.lines("call")}


async def test_no_worker_outlives_its_parent(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        await running.end(signal.SIGKILL)
        for process_id in running.worker_process_ids().values():
            assert await until(lambda process_id=process_id: ended(process_id), bool)


async def test_a_port_that_workers_have_is_taken_for_every_other_service(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        port = running.lines("serving")[0]["port"]
        other = running.environment | {"PAYORDER_LISTEN": f"127.0.0.1:{port}"}
        for workers in (1, 2):
            assert 1 == await (await start(tmp_path, other, workers)).wait()
        assert 2 == running.text().count(f"payorder: cannot listen on 127.0.0.1:{port}\n")
        assert {port} == {line["port"] for line in running.lines("serving")}


async def test_workers_do_not_share_the_port_of_another_service(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        async with serve(tmp_path, listen=f"127.0.0.1:{port}") as running:
            assert 1 == await running.process.wait()
        assert f"payorder: cannot listen on 127.0.0.1:{port}\n" == running.text()


async def test_an_address_is_reserved_for_one_parent_before_its_workers_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with reserve(address):
        for _ in range(2):
            with pytest.raises(OSError, match=f"cannot listen on {address}"):
                reserve(address)
    reserve(address).close()


@pytest.mark.parametrize("address", ["unix:/tmp/payorder", "127.0.0.1", ":50051", "127.0.0.1:http"])
async def test_workers_need_a_host_and_a_port(address: str) -> None:
    with pytest.raises(SettingsFault, match="PAYORDER_LISTEN"):
        reserve(address)


async def test_workers_that_cannot_start_end_the_service(tmp_path: Path) -> None:
    async with serve(tmp_path, processor="unheard_of") as running:
        assert 1 == await running.process.wait()
        assert "payorder: PAYORDER_PROCESSOR: not installed" in running.text()
        assert "ended with status 1 before it served" in running.text()


async def test_one_worker_is_a_service_without_a_parent(tmp_path: Path) -> None:
    async with serve(tmp_path, workers=1) as running:
        (serving_line,) = await running.wait_for("serving", 1)
        assert "worker" not in serving_line
        assert {} == running.worker_process_ids()
