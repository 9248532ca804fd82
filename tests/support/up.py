"""`./dev up` as its user has it: the command as a process, on free ports, in a folder of its own."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from payorder.local.issuer import Issuer
from support.requests import ORDER, payment
from support.stack import environment_without_payorder, free_port

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / ".venv" / "bin" / "payorder-local"


@dataclass(slots=True)
class Running:
    """A `payorder-local up` that is ready, with what it printed and the processes that it had then."""

    process: Process
    url: str
    grpc_url: str
    issuer_url: str
    data: Path
    printed: str
    descendants: list[int] = field(default_factory=list)

    async def end(self, number: signal.Signals) -> int:
        """Its exit status after that signal."""
        self.process.send_signal(number)
        async with asyncio.timeout(45):
            return await self.process.wait()


@asynccontextmanager
async def up(data: Path, *options: str) -> AsyncIterator[Running]:
    ports = [free_port() for _ in range(3)]
    process = await start(data, *ports, *options)
    running = Running(process, *(f"http://127.0.0.1:{port}" for port in ports), data, "")
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while "Ctrl-C" not in running.printed:
                line = (await process.stdout.readline()).decode()
                assert line, (await process.stderr.read()).decode() if process.stderr else ""
                running.printed += line
        running.descendants = descendants_of(process.pid)
        yield running
    finally:
        if process.returncode is None:
            await running.end(signal.SIGTERM)


async def start(data: Path, port: int, grpc_port: int, issuer_port: int, *options: str, **settings: str) -> Process:
    """`settings` are PAYORDER_* of its user."""
    return await asyncio.create_subprocess_exec(
        LOCAL,
        "up",
        "--port",
        str(port),
        "--grpc-port",
        str(grpc_port),
        "--issuer-port",
        str(issuer_port),
        "--data",
        str(data),
        *options,
        cwd=ROOT,
        env=environment() | {f"PAYORDER_{name.upper()}": value for name, value in settings.items()},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )  # fmt: skip - a command line


def environment() -> dict[str, str]:
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return environment_without_payorder() | {"PATH": path}


async def shell(script: str) -> tuple[int, str]:
    """What a terminal would show of it, in the folder of the project."""
    # ./dev first looks whether anything is to be installed; then it runs this.
    script = script.replace("./dev token", "payorder-local token")
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", script, cwd=ROOT, env=environment(), stdout=PIPE, stderr=asyncio.subprocess.STDOUT
    )
    status, output, _ = await ended(process)
    return status, output


async def ended(process: Process) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    async with asyncio.timeout(60):
        output, error = await process.communicate()
    return process.returncode or 0, (output or b"").decode(), (error or b"").decode()


def descendants_of(process_id: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It ended while we looked.
        parents[int(entry.parent.name)] = int(fields[1])
    found, new = [], [process_id]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


async def alive(process_ids: list[int]) -> list[int]:
    """Those that still run; a zombie does not."""
    return [each for each in process_ids if is_alive(each)]


def is_alive(process_id: int) -> bool:
    try:
        text = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in {"Z", "X"}


async def documented_order(running: Running, *, token: str | None = None) -> dict[str, Any]:
    """An order that was paid with the documented request, over REST."""
    order = await rest(running, "POST", "/orders", ORDER, token=token)
    assert "placed" == order.get("status"), order
    paid = await rest(running, "POST", f"/orders/{order['id']}/payment", payment(), token=token)
    assert "succeeded" == paid.get("status"), paid
    return await rest(running, "GET", f"/orders/{order['id']}", token=token)


async def rest(
    running: Running, method: str, path: str, body: Any = None, *, token: str | None = None
) -> dict[str, Any]:
    """Without a token of its own, with one of alice's."""
    token = token or Issuer(running.data / "issuer").token(subject="alice", scope="read:orders write:orders")
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {token}"}) as session,
        session.request(method, running.url + path, json=body) as response,
    ):
        answered: dict[str, Any] = await response.json(content_type=None)
        return answered
