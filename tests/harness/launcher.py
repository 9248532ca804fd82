"""Starts real service processes fast: a zygote forks them, so that a kill and a new start cost a few milliseconds."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
PROCESSOR_NAME = "faulty"
_START_SECONDS_MAX = 30.0


class StartFault(Exception):
    """A process ended before it was ready; the text names its log."""


@dataclass(frozen=True, slots=True)
class Arming:
    """Where a process ends (`kill`) or stops (`pause`): at its nth arrival at `point`."""

    point: str
    nth: int
    action: str


@dataclass(slots=True)
class Service:
    """One service process. `paused` and `exited` are set when they happen; `point` is where an armed end happened."""

    pid: int
    start_seconds: float
    port: int = 0
    point: str | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    paused: asyncio.Event = field(default_factory=asyncio.Event)
    exited: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def signal(self, number: signal.Signals) -> bool:
        """Whether the process was there to get it."""
        if self.exited.is_set():
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False


class Launcher:
    """Speaks to the zygote."""

    def __init__(self, zygote: asyncio.subprocess.Process, channel: socket.socket, folder: Path) -> None:
        self._zygote = zygote
        self._channel = channel
        self._plugins = _publish_plugin(folder)
        self._starts = count(1)
        self._started: dict[int, asyncio.Future[int]] = {}
        self._services: dict[int, Service] = {}
        self._up = asyncio.Event()
        asyncio.get_running_loop().add_reader(channel, self._hear)

    async def start(
        self,
        environment: Mapping[str, str],
        log: Path,
        *,
        arming: Arming | None = None,
        variant: str | None = None,
    ) -> Service:
        """Returns when the service answers, has been killed by its arming, or stands paused. Raises StartFault."""
        return await self._start(
            log,
            environment=dict(environment),
            plugins=self._plugins,
            variant=variant,
            arming=arming and {"point": arming.point, "nth": arming.nth, "action": arming.action},
        )

    async def start_processor(
        self, ledger: Path, seed: int, mixes: Mapping[str, Mapping[str, int]], log: Path
    ) -> Service:
        """Returns when the processor answers. Raises StartFault."""
        return await self._start(
            log,
            processor={
                "ledger": str(ledger),
                "seed": seed,
                "mixes": {name: dict(weights) for name, weights in mixes.items()},
            },
        )

    async def _start(self, log: Path, **request: Any) -> Service:
        began = time.monotonic()
        start = next(self._starts)
        started = self._started[start] = asyncio.get_running_loop().create_future()
        self._channel.send(json.dumps({"start": start, "log": str(log), **request}).encode())
        pid = await started
        service = self._services[pid]
        waits = [asyncio.create_task(each.wait()) for each in (service.ready, service.exited, service.paused)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=_START_SECONDS_MAX)
        finally:
            for wait in waits:
                wait.cancel()
        if not service.ready.is_set() and service.point is None:
            raise StartFault(f"a process did not start; see {log}")
        service.start_seconds = time.monotonic() - began
        return service

    async def up(self) -> None:
        ended = asyncio.create_task(self._zygote.wait())
        up = asyncio.create_task(self._up.wait())
        await asyncio.wait({ended, up}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if ended.done():
            raise StartFault("the zygote ended; its error stands above")
        ended.cancel()

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._channel)
        for service in self._services.values():
            service.signal(signal.SIGKILL)
        self._channel.close()
        if self._zygote.returncode is None:
            self._zygote.kill()
        await self._zygote.wait()

    def _hear(self) -> None:
        try:
            told = json.loads(self._channel.recv(1 << 16) or b"{}")
        except BlockingIOError:
            return
        match told:
            case {"event": "up"}:
                self._up.set()
            case {"event": "started", "start": start, "pid": pid}:
                self._service(pid)
                self._started.pop(start).set_result(pid)
            case {"event": "ready", "pid": pid, "port": port}:
                self._service(pid).port = port
                self._service(pid).ready.set()
            case {"event": "pause", "pid": pid, "point": point}:
                self._service(pid).point = point
                self._service(pid).paused.set()
            case {"event": "kill", "pid": pid, "point": point}:
                self._service(pid).point = point
            case {"event": "exited", "pid": pid}:
                self._service(pid).exited.set()
            case _:
                asyncio.get_running_loop().remove_reader(self._channel)  # the zygote is gone

    def _service(self, pid: int) -> Service:
        known = self._services.get(pid)
        if known is None or (known.exited.is_set() and known.ready.is_set()):
            self._services[pid] = Service(pid, 0.0)
        return self._services[pid]


@asynccontextmanager
async def launcher(folder: Path) -> AsyncIterator[Launcher]:
    """A zygote, ended with the block, and every process it has forked with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        zygote = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "harness.zygote", str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )
    ours.setblocking(False)
    launched = Launcher(zygote, ours, folder)
    try:
        await launched.up()
        yield launched
    finally:
        await launched.close()


def _publish_plugin(folder: Path) -> str:
    """The processor's plug-in, as an installed package would declare it. Returns the folder for sys.path."""
    declared = folder / "plugins" / "payorder_harness-0.dist-info"
    declared.mkdir(parents=True, exist_ok=True)
    (declared / "METADATA").write_text("Metadata-Version: 2.1\nName: payorder-harness\nVersion: 0\n", encoding="utf-8")
    entry = f"[payorder.processors]\n{PROCESSOR_NAME} = harness.processor.plugin:from_options\n"
    (declared / "entry_points.txt").write_text(entry, encoding="utf-8")
    return str(declared.parent)
