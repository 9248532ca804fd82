"""Replicas that are killed and paused all the time, and the doors to those that answer."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random

import grpc

from harness.client import Door
from harness.crash_points import PAUSES, POINTS
from harness.launcher import Arming, Service
from harness.stage import Stage

_ARMED_SECONDS_MAX = 1.0
# Where only some points are wanted, they are waited for.
_WANTED_SECONDS_MAX = 4.0


@dataclass(slots=True)
class Tally:
    """What was done to the replicas: by point, "random" for moments of the driver's choosing."""

    kills: Counter[str] = field(default_factory=Counter)
    pauses: Counter[str] = field(default_factory=Counter)
    start_seconds: list[float] = field(default_factory=list)


class Doors:
    """The replicas that answer just now."""

    def __init__(self) -> None:
        self._open: dict[int, Door] = {}
        self._some = asyncio.Event()
        self._closing: dict[asyncio.Task[None], Door] = {}

    def open(self, service: Service) -> None:
        self._open[service.pid] = Door(service.address)
        self._some.set()

    def shut(self, service: Service) -> None:
        if door := self._open.pop(service.pid, None):
            task = asyncio.create_task(_close_later(door))
            self._closing[task] = door
            task.add_done_callback(self._closing.pop)
        if not self._open:
            self._some.clear()

    async def pick(self, random: Random) -> Door:
        while not self._open:
            await self._some.wait()
        return random.choice(list(self._open.values()))

    async def close(self) -> None:
        """Those too that are waiting to be closed: their tasks may not even have begun."""
        doors = [*self._open.values(), *self._closing.values()]
        tasks = list(self._closing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for door in doors:
            await door.channel.close()


@asynccontextmanager
async def open_doors() -> AsyncIterator[Doors]:
    doors = Doors()
    try:
        yield doors
    finally:
        await doors.close()


async def _close_later(door: Door) -> None:
    # Closing at once would cancel calls whose end is still on its way.
    await asyncio.sleep(8)
    await door.channel.close()


class Cluster:
    """Keeps `replicas` processes up and, until the quotas are full, keeps ending and stopping them."""

    def __init__(
        self,
        stage: Stage,
        doors: Doors,
        *,
        replicas: int,
        kills: int,
        pauses: int,
        points: tuple[str, ...] = (),
    ) -> None:
        """`points`: the only ones to arm; all of them if there are none."""
        self._points = points
        self._stage = stage
        self._doors = doors
        self._random = stage.random("cluster")
        self._replicas = replicas
        self._kills_left = kills
        self._pauses_left = pauses
        self.tally = Tally()
        self._zombies: set[asyncio.Task[None]] = set()
        self._calm: list[Service] = []

    async def run(self) -> None:
        """Until both quotas are full and every replica is up unarmed."""
        async with asyncio.TaskGroup() as slots:
            for slot in range(self._replicas):
                slots.create_task(self._keep(self._stage.random(f"replica {slot}")))
        await asyncio.gather(*self._zombies)

    async def stop(self) -> None:
        """Ask the last processes to end as an operator would."""
        for service in self._calm:
            self._doors.shut(service)
            service.signal(signal.SIGTERM)
        for service in self._calm:
            with suppress(TimeoutError):
                await asyncio.wait_for(service.exited.wait(), 15)

    async def _keep(self, random: Random) -> None:
        while self._kills_left > 0 or self._pauses_left > 0:
            arming, moment = self._choose(random)
            service = await self._start(arming)
            if service.paused.is_set() or not await self._ends_by_itself(service, moment):
                self._end(service, arming)
            else:
                await self._count_the_kill(service)
        self._calm.append(await self._start(None))

    def _choose(self, random: Random) -> tuple[Arming | None, float]:
        """An armed point, or a moment to strike at. The share of pauses is what is left of both quotas."""
        left = self._kills_left + self._pauses_left
        pauses = random.randrange(max(left, 1)) < self._pauses_left
        if not self._points and random.random() < 0.25:
            return None, random.uniform(0.02, 0.4)
        point = random.choice(self._points or (PAUSES if pauses else POINTS))
        repeats = not self._points and point.startswith(("claim", "charge", "settle"))
        nth = random.choice((1, 1, 1, 1, 2, 3)) if repeats else 1
        armed_seconds = _WANTED_SECONDS_MAX if self._points else _ARMED_SECONDS_MAX
        return Arming(point, nth, "pause" if pauses else "kill"), armed_seconds

    async def _start(self, arming: Arming | None) -> Service:
        service = await self._stage.start_service(arming)
        self.tally.start_seconds.append(service.start_seconds)
        if service.ready.is_set() and not service.exited.is_set() and not service.paused.is_set():
            self._doors.open(service)
        return service

    async def _ends_by_itself(self, service: Service, within_seconds: float) -> bool:
        """False: it still runs, or stands paused."""
        waits = [asyncio.create_task(each.wait()) for each in (service.exited, service.paused)]
        await asyncio.wait(waits, timeout=within_seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return service.exited.is_set()

    def _end(self, service: Service, arming: Arming | None) -> None:
        wants_pause = arming.action == "pause" if arming else self._random.random() < self._pause_share()
        if service.paused.is_set() or (wants_pause and self._pauses_left > 0):
            self._pause(service)
        else:
            self._kills_left -= 1
            task = asyncio.create_task(self._kill(service))
            self._zombies.add(task)

    def _pause_share(self) -> float:
        return self._pauses_left / max(self._kills_left + self._pauses_left, 1)

    def _pause(self, service: Service) -> None:
        if not service.paused.is_set():
            service.signal(signal.SIGSTOP)
        self._pauses_left -= 1
        self.tally.pauses[service.point or "random"] += 1
        self._stage.transcript.note("pause", pid=service.pid, point=service.point or "random")
        task = asyncio.create_task(self._wake_late(service))
        self._zombies.add(task)

    async def _wake_late(self, service: Service) -> None:
        """Stopped for longer than others wait before they act; then it goes on as if nothing had been."""
        self._doors.shut(service)
        reconcile_after = float(self._stage.environment().get("PAYORDER_RECONCILE_AFTER_SECONDS", "2"))
        await asyncio.sleep(reconcile_after + self._random.uniform(0.4, 2.0))
        service.signal(signal.SIGCONT)
        await asyncio.sleep(self._random.uniform(0.3, 1.5))
        await self._kill(service)

    async def _kill(self, service: Service) -> None:
        """It may have come to its armed point just before: that is a kill as well."""
        service.signal(signal.SIGKILL)
        await service.exited.wait()
        await self._count_the_kill(service, quota=False)

    async def _count_the_kill(self, service: Service, *, quota: bool = True) -> None:
        self._doors.shut(service)
        self._kills_left -= quota
        point = service.point if service.point and not service.paused.is_set() else "random"
        self.tally.kills[point] += 1
        self._stage.transcript.note("kill", pid=service.pid, point=point)


def is_transport_error(code: str) -> bool:
    return code in {grpc.StatusCode.UNAVAILABLE.name, grpc.StatusCode.DEADLINE_EXCEEDED.name, "CANCELLED", "HUNG_UP"}
