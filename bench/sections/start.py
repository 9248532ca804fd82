"""From a command to something that answers."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import aiohttp
import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from bench.load.calls import AMOUNT, CURRENCY, SOURCE
from bench.measure import Mismatch
from bench.report import Goal, Section
from bench.sizes import Sizes
from bench.stage import OWNER, SCOPE, Stage, free_address
from payorder.config import PREFIX
from payorder.local.issuer import Issuer

ROOT = Path(__file__).parents[2]
_HELP, _SERVE, _UP = "payorder --help", "payorder serve, to SERVING", "./dev up, to the first paid order over REST"


async def measure(stage: Stage, sizes: Sizes) -> list[Section]:
    url = await stage.sqlite_url()
    starts: dict[str, Callable[[], Awaitable[float]]] = {
        _HELP: _help,
        _SERVE: lambda: _serve(stage, url),
        _UP: lambda: _up(stage.folder / f"up{len(list(stage.folder.glob('up*')))}"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in starts}
    # The first of each fills the caches and is thrown away.
    for turn in range(sizes.starts + 1):
        for name, start in starts.items():
            taken = await start()
            if turn:
                seconds[name].append(taken)
    return [_section({name: median(each) for name, each in seconds.items()}, sizes)]


def _section(seconds: dict[str, float], sizes: Sizes) -> Section:
    return Section(
        name="start",
        title="Starting",
        about=f"SQLite, warm caches, median of {sizes.starts}. Processor latency 0.",
        columns=("command", "seconds"),
        rows=[[name, f"{each:.2f}"] for name, each in seconds.items()],
        goals=[Goal(_UP, seconds[_UP], "at most", 3, " s")],
        data=seconds,
    )


async def _help() -> float:
    began = perf_counter()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "payorder", "--help", stdout=DEVNULL)
    await process.wait()
    return perf_counter() - began


async def _serve(stage: Stage, database_url: str) -> float:
    address = free_address()
    environment = stage.service_environment(database_url, address)
    began = perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "payorder", "serve", env=environment, stdout=DEVNULL
    )
    try:
        async with grpc.aio.insecure_channel(address, options=[("grpc.initial_reconnect_backoff_ms", 100)]) as channel:
            check = HealthStub(channel).Check
            answer = await check(HealthCheckRequest(), timeout=30, wait_for_ready=True)
            seconds = perf_counter() - began
    finally:
        await _end(process)
    if answer.status != HealthCheckResponse.SERVING:
        raise Mismatch("the service answers and does not serve")
    return seconds


async def _up(data: Path) -> float:
    """In a folder of its own: the database and the key are made as well."""
    port, grpc_port, issuer_port = (free_address().rpartition(":")[2] for _ in range(3))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    began = perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(str(ROOT / "dev"), "up", "--port", port, "--grpc-port", grpc_port, "--issuer-port", issuer_port),
        *("--data", str(data)),
        env=environment,
        stdout=PIPE,
    )
    try:
        assert process.stdout is not None
        ready = await asyncio.wait_for(process.stdout.readline(), 60)
        if not ready.startswith(b"ready"):
            raise Mismatch("./dev up did not become ready")
        await _pay_first_order(f"http://127.0.0.1:{port}", Issuer(data / "issuer"))
        return perf_counter() - began
    finally:
        await _end(process)


async def _pay_first_order(url: str, issuer: Issuer) -> None:
    headers = {"authorization": f"Bearer {issuer.token(subject=OWNER, scope=SCOPE)}"}
    order = {"totalAmount": AMOUNT, "currency": CURRENCY}
    payment = {"amount": AMOUNT, "currency": CURRENCY, "source": SOURCE}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"{url}/orders", json=order) as answer:
            order_id = (await answer.json())["id"]
        async with session.post(f"{url}/orders/{order_id}/payment", json=payment) as answer:
            paid = await answer.json()
    if paid.get("status") != "succeeded":
        raise Mismatch(f"the first order was not paid: {paid}")


async def _end(process: Process) -> None:
    process.send_signal(signal.SIGTERM)
    await process.communicate()
