"""Several processes as one: started in order, each when the one before is ready, stopped in reverse.

No orphan is left, however this process ends: on Linux the kernel ends the children with their parent.
"""

import asyncio
import ctypes
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_READY_POLL_SECONDS = 0.05


class ProcessFault(Exception):
    """A process did not become ready, or ended by itself. The text names it and the file with its output."""


@dataclass(frozen=True, slots=True)
class Process:
    """What to run: `stop_signal` asks it to end; `user` is the system user, None for our own."""

    name: str
    command: list[str]
    log: Path
    ready: Callable[[], Awaitable[bool]]
    environment: Mapping[str, str] | None = None
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    ready_timeout_seconds: float = 30.0
    stop_timeout_seconds: float = 40.0


@dataclass(slots=True)
class Supervisor:
    _running: list[tuple[Process, asyncio.subprocess.Process]] = field(default_factory=list)

    async def start(self, process: Process) -> None:
        """Returns when the process is ready. Raises ProcessFault."""
        await (await self.launch(process))()

    async def launch(self, process: Process) -> Callable[[], Awaitable[None]]:
        """Start it; what is returned waits until it is ready, while others may be started. That raises ProcessFault."""
        child = await self._spawn(process)
        self._running.append((process, child))
        return partial(self._until_ready, process, child)

    async def _until_ready(self, process: Process, child: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + process.ready_timeout_seconds
        while not await process.ready():
            if child.returncode is not None:
                raise ProcessFault(f"{process.name} ended with status {child.returncode}; see {process.log}")
            if time.monotonic() > deadline:
                raise ProcessFault(f"{process.name} is not ready; see {process.log}")
            await asyncio.sleep(_READY_POLL_SECONDS)

    async def wait(self) -> None:
        """Until a process ends by itself, which none should: raises ProcessFault."""
        waits = {asyncio.create_task(child.wait()): process for process, child in self._running}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        first = next(iter(done))
        raise ProcessFault(f"{waits[first].name} ended with status {first.result()}; see {waits[first].log}")

    async def stop(self) -> None:
        """End every process, the last started first; what does not end in time is killed."""
        while self._running:
            process, child = self._running.pop()
            if child.returncode is not None:
                continue
            child.send_signal(process.stop_signal)
            try:
                await asyncio.wait_for(child.wait(), process.stop_timeout_seconds)
            except TimeoutError:
                child.kill()
                await child.wait()

    async def _spawn(self, process: Process) -> asyncio.subprocess.Process:
        with process.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *process.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=process.environment,
                user=process.user,
                # Ctrl-C reaches the group of the terminal: in a group of their own, children end in our order.
                process_group=0,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
