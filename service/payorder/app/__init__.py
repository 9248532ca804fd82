"""The composition root: the one place that knows every concrete class.

`ground` is what everything stands on, `trust` whom the service believes, `paying` orders and payments, `telling` what
tells others of them. Here they are put together, started and ended.
"""

import asyncio
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import stamina

from payorder.adapters.database import roles
from payorder.adapters.database.engine import Database
from payorder.adapters.system import SystemClock
from payorder.adapters.tokens.verifier import JwtVerifier
from payorder.app import telling, trust
from payorder.app.ground import Ground
from payorder.app.paying import Servicers, load_processor, reconcile_with, store_of
from payorder.config import Environment, Settings, SettingsFault
from payorder.domain.declines import DeclineLimits
from payorder.domain.errors import Busy
from payorder.edge.call_records import CallRecords
from payorder.edge.server import EdgeServer, ServerLimits
from payorder.edge.steps import CallSteps
from payorder.observability.logging import CallLog
from payorder.ports.store import Store
from payorder.workflows.add_up_statistics import AddUpStatistics
from payorder.workflows.background import Background
from payorder.workflows.deliver_webhooks import DeliverWebhooks
from payorder.workflows.seal_audit_log import SealAuditLog
from payorder.workflows.watch_declines import WatchDeclines
from payorder.workflows.watch_order import WatchedOrders

__all__ = ["App", "load_processor", "running"]

_STOP_TIMEOUT_SECONDS = 2.0


class Loop(Protocol):
    """What runs beside the calls, from the start of the service to its end."""

    async def run(self) -> None: ...

    def stop(self) -> None: ...


class Connected(Protocol):
    """What is closed at the end."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class App:
    """A service that is up; `port` is where it listens."""

    port: int


@dataclass(frozen=True, slots=True)
class _Parts:
    server: EdgeServer
    background: Background
    deliver: DeliverWebhooks
    loops: Sequence[Loop]
    connected: Sequence[Connected]


@asynccontextmanager
async def running(settings: Settings, *, worker: int | None = None) -> AsyncIterator[App]:
    """The service from its first connection to the end of its last payment; `worker` shares its port with others."""
    # By default every retry is logged with the arguments of what is retried.
    stamina.instrumentation.set_on_retry_hooks([])
    log, clock = CallLog(worker), SystemClock()
    ground = Ground(settings, _open_database(settings), clock, log)
    await _refuse_mighty_role(ground)
    was_ready = asyncio.Event()
    parts = _assemble(ground, was_ready, shares_port=worker is not None)
    looping = {asyncio.create_task(_run(loop, was_ready)): loop for loop in parts.loops}
    try:
        port = await parts.server.start()
        log.event("serving", port=port, processor=settings.processor_name, environment=settings.env)
        yield App(port)
    finally:
        deadline = clock.uptime_seconds() + settings.drain_seconds
        parts.deliver.stop()
        await parts.server.stop(settings.drain_seconds)
        unfinished = await parts.background.drain(max(0, deadline - clock.uptime_seconds()))
        log.event("stopped", unfinished_payments=unfinished)
        was_ready.set()
        await _end(looping, max(_STOP_TIMEOUT_SECONDS, deadline - clock.uptime_seconds()))
        for each in parts.connected:
            await each.close()


def _assemble(ground: Ground, was_ready: asyncio.Event, *, shares_port: bool) -> _Parts:
    settings, log, watched = ground.settings, ground.log, WatchedOrders()
    processor, receivers, tokens = load_processor(settings), telling.receivers(settings), trust.tokens(settings, log)
    signer, shut_out = trust.receipt_signer(settings, log), trust.shut_out(settings)
    out = telling.dispatcher(ground, receivers, signer, shut_out)
    store = store_of(ground, out.fan_out, watched)
    told = telling.telling(ground, store, receivers, signer, deliver=out.deliver, watched=watched)
    background, reconcile = Background(on_fault=log.fault), reconcile_with(ground, store, processor)
    servicers = Servicers(ground, store, processor, background=background, reconcile=reconcile)
    server = EdgeServer(
        orders=servicers.orders(told),
        payments=servicers.payments(told),
        admin=servicers.admin(told),
        webhooks=told.webhooks,
        steps=_steps(ground, store, tokens, shut_out),
        store=store,
        limits=_server_limits(settings, shares_port=shares_port),
        was_ready=was_ready,
    )
    loops: Sequence[Loop] = [
        *(reconcile, told.watch_order),
        *_sending(ground, out),
        *telling.listening(ground, watched),
        *_keeping(ground, store),
    ]
    return _Parts(server, background, out.deliver, loops, (receivers, tokens, processor, store))


async def _run(loop: Loop, was_ready: asyncio.Event) -> None:
    """Not before there is a schema, which may be on its way."""
    await was_ready.wait()
    await loop.run()


async def _end(looping: Mapping["asyncio.Task[None]", Loop], timeout_seconds: float) -> None:
    """Let each loop finish what it does."""
    for loop in looping.values():
        loop.stop()
    await asyncio.wait(looping, timeout=timeout_seconds)
    for task in looping:
        task.cancel()
    await asyncio.gather(*looping, return_exceptions=True)


def _open_database(settings: Settings) -> Database:
    return Database(
        settings.database_url,
        pool_size=settings.database_pool_size,
        pool_timeout_seconds=settings.database_pool_timeout_seconds,
    )


async def _refuse_mighty_role(ground: Ground) -> None:
    """In production, nobody who serves can change what the audit log says. Raises SettingsFault."""
    if ground.settings.env is not Environment.PRODUCTION:
        return
    try:
        await roles.refuse_mighty(ground.database)
    except roles.RoleFault as fault:
        await ground.database.close()
        raise SettingsFault(f"PAYORDER_DATABASE_URL: {fault}") from fault
    except Busy as away:
        await ground.database.close()
        raise SettingsFault("PAYORDER_DATABASE_URL: the database does not answer, so its role is not known") from away


def _steps(ground: Ground, store: Store, tokens: JwtVerifier, shut_out: Container[str]) -> CallSteps:
    return CallSteps(
        tokens=tokens,
        disabled=shut_out,
        believes_certificates=ground.settings.forwarded_client_cert,
        records=CallRecords(store.record_call, ground.clock),
        log=ground.log,
    )


def _server_limits(settings: Settings, *, shares_port: bool) -> ServerLimits:
    return ServerLimits(
        listen=settings.listen,
        shares_port=shares_port,
        request_bytes_max=settings.request_bytes_max,
        calls_max=settings.calls_max,
        serves_reflection=settings.serves_reflection,
    )


def _sending(ground: Ground, out: telling.Dispatcher) -> list[Loop]:
    if ground.settings.webhook_sends_here:
        return [out.fan_out, out.deliver, out.forget]
    ground.log.event("webhooks left to others", reason="PAYORDER_WEBHOOK_SENDS_HERE is false")
    return []


def _keeping(ground: Ground, store: Store) -> list[Loop]:
    """What is made of the audit log."""
    sums = AddUpStatistics(store=store, on_fault=ground.log.fault)
    return [sums, _watching(ground, store), *_sealing(ground, store)]


def _watching(ground: Ground, store: Store) -> WatchDeclines:
    settings, log = ground.settings, ground.log
    return WatchDeclines(
        store=store,
        limits=DeclineLimits(settings.alert_declines_per_day_max, settings.alert_decline_ratio_max),
        every_seconds=settings.alert_every_seconds,
        on_unusual=lambda day, expected: log.declines_unusual(
            declined=day.declined, expected=round(expected), answered=day.answered
        ),
        on_fault=log.fault,
    )


def _sealing(ground: Ground, store: Store) -> list[SealAuditLog]:
    """Raises SettingsFault."""
    log, signer = ground.log, trust.audit_signer(ground.settings, ground.log)
    if signer is None:
        return []
    sealing = SealAuditLog(
        store=store,
        signer=signer,
        every_seconds=ground.settings.audit_seal_every_seconds,
        on_seal=lambda seal: log.event(
            "audit log sealed", number=seal.number, entries=seal.entry_count, digest=seal.hash.hex(), key=seal.key_id
        ),
        on_fault=log.fault,
    )
    return [sealing]
