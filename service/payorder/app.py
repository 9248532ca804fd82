"""The composition root: the one place that knows every concrete class."""

import asyncio
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import stamina

from payorder.adapters.database import roles
from payorder.adapters.database.endpoint_store import DatabaseEndpoints
from payorder.adapters.database.engine import Database
from payorder.adapters.database.listening import EventListener
from payorder.adapters.database.outbox import DatabaseOutbox
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.receipts.printer import Printer
from payorder.adapters.receivers.on_demand import ReceiversOnDemand
from payorder.adapters.receivers.rules import Rules
from payorder.adapters.sealing import FernetBox
from payorder.adapters.signing import Ed25519Signer, NoSigningKey, PublicKey, read_key_set
from payorder.adapters.system import SystemClock, new_id, new_webhook_secret
from payorder.adapters.tokens.files import DisabledSubjects, FileKeySet
from payorder.adapters.tokens.keys import NoKeySet
from payorder.adapters.tokens.verifier import JwtVerifier, KeySet, TokenRules
from payorder.config import Environment, Settings, SettingsFault
from payorder.domain.declines import DeclineLimits
from payorder.domain.errors import Busy
from payorder.domain.fingerprint import SourceFingerprints
from payorder.domain.limits import AttemptLimits
from payorder.edge.admin import AdminServicer
from payorder.edge.call_records import CallRecords
from payorder.edge.event_bodies import JsonBodies, render_callback, render_test
from payorder.edge.idempotency import IdempotencyKeys
from payorder.edge.orders import OrderServicer
from payorder.edge.payments import PaymentServicer
from payorder.edge.receipts import Receipts
from payorder.edge.replies import to_callback_reply, to_order_reply, to_payment_reply
from payorder.edge.server import EdgeServer, ServerLimits
from payorder.edge.steps import CallSteps
from payorder.edge.webhooks import WebhookServicer
from payorder.observability.logging import CallLog
from payorder.ports.clock import Clock
from payorder.ports.endpoints import EverybodysEndpoints
from payorder.ports.processor import Processor, ProcessorFactory
from payorder.ports.receivers import Receivers
from payorder.ports.store import Store
from payorder.workflows.add_up_statistics import AddUpStatistics
from payorder.workflows.background import Background
from payorder.workflows.cancel_order import CancelOrder
from payorder.workflows.create_order import CreateOrder
from payorder.workflows.deliver_webhooks import DeliverWebhooks
from payorder.workflows.fan_out_events import FanOutEvents
from payorder.workflows.force_cancel_order import ForceCancelOrder
from payorder.workflows.fulfil_order import FulfilOrder
from payorder.workflows.manage_webhooks import ManageWebhooks
from payorder.workflows.oversee_webhooks import OverseeWebhooks
from payorder.workflows.pay_order import ChargeLimits, PayOrder
from payorder.workflows.reconcile import Reconcile, ReconcileLimits
from payorder.workflows.request_callback import RequestCallback
from payorder.workflows.seal_audit_log import SealAuditLog
from payorder.workflows.sign_receipt import SignReceipt
from payorder.workflows.sign_webhook import SignWebhook
from payorder.workflows.watch_declines import WatchDeclines
from payorder.workflows.watch_order import WatchedOrders, WatchLimits, WatchOrder

PROCESSORS = "payorder.processors"
_COMPARE_TIMEOUT_SECONDS = 60.0
_STOP_TIMEOUT_SECONDS = 2.0


class Loop(Protocol):
    """What runs beside the calls, from the start of the service to its end."""

    async def run(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class App:
    """A service that is up; `port` is where it listens."""

    port: int


@dataclass(frozen=True, slots=True)
class _Telling:
    """What tells others of payments."""

    webhooks: WebhookServicer
    endpoints: EverybodysEndpoints
    request_callback: RequestCallback
    receipts: Receipts


@asynccontextmanager
async def running(settings: Settings, *, worker: int | None = None) -> AsyncIterator[App]:
    """The service from its first connection to the end of its last payment; `worker` shares its port with others."""
    # By default every retry is logged with the arguments of what is retried.
    stamina.instrumentation.set_on_retry_hooks([])
    log, clock, watched = CallLog(worker), SystemClock(), WatchedOrders()
    database = open_database(settings)
    await refuse_mighty_role(settings, database)
    processor = load_processor(settings)
    receivers = _receivers(settings)
    signer = _receipt_signer(settings, log)
    deliver = _deliver(settings, database, receivers, signer, clock, log)
    fan_out = _fan_out(settings, database, deliver, log)
    store = _store(settings, database, fan_out, watched, log)
    telling = _telling(settings, database, store, receivers, signer, deliver, clock, log)
    background = Background(on_fault=log.fault)
    tokens = _tokens(settings, log)
    watch_order, listening = _watch_order(settings, store, database, watched, clock, log)
    server, reconcile = _assemble(
        *(settings, store, processor, clock, background, tokens, log),
        telling=telling,
        watch_order=watch_order,
        shares_port=worker is not None,
    )
    loops: list[Loop] = [reconcile, fan_out, deliver, watch_order, *listening, *_keeping(settings, store, log)]
    looping = {asyncio.create_task(loop.run()): loop for loop in loops}
    try:
        port = await server.start()
        log.event("serving", port=port, processor=settings.processor_name, environment=settings.env)
        yield App(port)
    finally:
        deadline = clock.uptime_seconds() + settings.drain_seconds
        deliver.stop()
        await server.stop(settings.drain_seconds)
        unfinished = await background.drain(max(0, deadline - clock.uptime_seconds()))
        log.event("stopped", unfinished_payments=unfinished)
        await _end(looping, max(_STOP_TIMEOUT_SECONDS, deadline - clock.uptime_seconds()))
        await receivers.close()
        await tokens.close()
        await processor.close()
        await store.close()


def _store(
    settings: Settings, database: Database, fan_out: FanOutEvents, watched: WatchedOrders, log: CallLog
) -> DatabaseStore:
    def changed(what: str, subject_id: str, order_id: str) -> None:
        _changed(log, fan_out, what, subject_id)
        watched.wake(order_id)

    return DatabaseStore(
        database,
        reconcile_after_seconds=settings.reconcile_after_seconds,
        limits=_attempt_limits(settings),
        on_change=changed,
    )


def _watch_order(
    settings: Settings, store: DatabaseStore, database: Database, watched: WatchedOrders, clock: Clock, log: CallLog
) -> tuple[WatchOrder, list[Loop]]:
    """Also who hears of what other processes write: on SQLite nobody does, but by asking."""
    watch_order = WatchOrder(
        store=store,
        watched=watched,
        clock=clock,
        limits=WatchLimits(
            at_most=settings.watches_max,
            per_caller=settings.watches_per_caller_max,
            life_seconds=settings.watch_life_seconds,
            quiet_seconds=settings.watch_quiet_seconds,
            poll_every_seconds=settings.watch_poll_seconds,
        ),
        on_fault=log.fault,
    )
    if database.url.get_backend_name() == "sqlite":
        return watch_order, []
    return watch_order, [EventListener(database.url, watched.wake)]


async def _end(looping: Mapping["asyncio.Task[None]", Loop], timeout_seconds: float) -> None:
    """Let each loop finish what it does."""
    for loop in looping.values():
        loop.stop()
    await asyncio.wait(looping, timeout=timeout_seconds)
    for task in looping:
        task.cancel()
    await asyncio.gather(*looping, return_exceptions=True)


def open_database(settings: Settings) -> Database:
    return Database(
        settings.database_url,
        pool_size=settings.database_pool_size,
        pool_timeout_seconds=settings.database_pool_timeout_seconds,
    )


async def refuse_mighty_role(settings: Settings, database: Database) -> None:
    """In production, nobody who serves can change what the audit log says. Raises SettingsFault."""
    if settings.env is not Environment.PRODUCTION:
        return
    try:
        await roles.refuse_mighty(database)
    except roles.RoleFault as fault:
        await database.close()
        raise SettingsFault(f"PAYORDER_DATABASE_URL: {fault}") from fault
    except Busy as away:
        await database.close()
        raise SettingsFault("PAYORDER_DATABASE_URL: the database does not answer, so its role is not known") from away


def _attempt_limits(settings: Settings) -> AttemptLimits:
    return AttemptLimits(
        declines_per_order=settings.declines_per_order_max,
        attempts_per_owner=settings.attempts_per_owner_max,
        attempts_per_source=settings.attempts_per_source_max,
        window_seconds=settings.limits_window_seconds,
    )


def load_processor(settings: Settings) -> Processor:
    """The processor of that name among the entry points of all installed packages. Raises SettingsFault."""
    found = {point.name: point for point in entry_points(group=PROCESSORS)}
    if settings.processor_name not in found:
        raise SettingsFault(f"PAYORDER_PROCESSOR: not installed; there are {', '.join(sorted(found))}")
    factory: ProcessorFactory = found[settings.processor_name].load()
    try:
        return factory(settings.processor_options)
    except ValueError as error:
        raise SettingsFault(f"PAYORDER_PROCESSOR_OPTIONS: {error}") from error


def _assemble(
    settings: Settings,
    store: Store,
    processor: Processor,
    clock: Clock,
    background: Background,
    tokens: JwtVerifier,
    log: CallLog,
    *,
    telling: _Telling,
    watch_order: WatchOrder,
    shares_port: bool,
) -> tuple[EdgeServer, Reconcile]:
    keys = IdempotencyKeys(settings.fingerprint_secrets)
    reconcile = _reconcile(settings, store, processor, clock, log)
    pay_order = _pay_order(settings, store, processor, clock, background)
    server = EdgeServer(
        orders=_orders(store, clock, background, reconcile, telling, watch_order, keys),
        payments=PaymentServicer(
            pay_order=pay_order,
            store=store,
            keys=keys,
            receipts=telling.receipts,
            answer_within_seconds=settings.answer_within_seconds,
        ),
        admin=AdminServicer(
            force_cancel=_force_cancel(settings, store, processor, clock, background, reconcile),
            fulfil_order=FulfilOrder(store=store, clock=clock, render=to_order_reply),
            oversee=OverseeWebhooks(endpoints=telling.endpoints, clock=clock),
            endpoints=telling.endpoints,
            store=store,
            keys=keys,
        ),
        webhooks=telling.webhooks,
        steps=_steps(settings, store, clock, tokens, log),
        store=store,
        limits=_server_limits(settings, shares_port),
    )
    return server, reconcile


def _orders(
    store: Store,
    clock: Clock,
    background: Background,
    reconcile: Reconcile,
    telling: _Telling,
    watch_order: WatchOrder,
    keys: IdempotencyKeys,
) -> OrderServicer:
    cancel_order = CancelOrder(
        store=store,
        clock=clock,
        new_id=new_id,
        render=to_order_reply,
        refund=reconcile.refund,
        background=background,
    )
    return OrderServicer(
        create_order=CreateOrder(store=store, clock=clock, new_id=new_id, render=to_order_reply),
        watch_order=watch_order,
        cancel_order=cancel_order,
        request_callback=telling.request_callback,
        store=store,
        keys=keys,
        receipts=telling.receipts,
    )


def _telling(
    settings: Settings,
    database: Database,
    store: Store,
    receivers: Receivers,
    signer: Ed25519Signer,
    deliver: DeliverWebhooks,
    clock: Clock,
    log: CallLog,
) -> _Telling:
    endpoints = DatabaseEndpoints(
        database, bodies=_bodies(settings), on_change=lambda what, subject_id: _changed(log, deliver, what, subject_id)
    )
    manage = ManageWebhooks(
        endpoints=endpoints,
        receivers=receivers,
        secrets=FernetBox(settings.sealing_keys),
        clock=clock,
        new_id=new_id,
        new_secret=new_webhook_secret,
        render_test=render_test,
        endpoints_max=settings.webhook_endpoints_max,
    )
    request_callback = RequestCallback(
        endpoints=endpoints,
        receivers=receivers,
        clock=clock,
        new_id=new_id,
        reply=to_callback_reply(),
        render=render_callback,
    )
    servicer = WebhookServicer(manage=manage, endpoints=endpoints)
    return _Telling(servicer, endpoints, request_callback, _receipts(settings, store, signer))


def _steps(settings: Settings, store: Store, clock: Clock, tokens: JwtVerifier, log: CallLog) -> CallSteps:
    return CallSteps(
        tokens=tokens,
        disabled=_disabled(settings),
        believes_certificates=settings.forwarded_client_cert,
        records=CallRecords(store.record_call, clock),
        log=log,
    )


def _pay_order(
    settings: Settings, store: Store, processor: Processor, clock: Clock, background: Background
) -> PayOrder:
    return PayOrder(
        store=store,
        processor=processor,
        processor_name=settings.processor_name,
        limits=ChargeLimits(
            timeout_seconds=settings.charge_timeout_seconds,
            send_within_seconds=settings.send_within_seconds,
            at_once=settings.charges_max,
            backlog=settings.backlog_max,
        ),
        clock=clock,
        new_id=new_id,
        fingerprints=SourceFingerprints(settings.fingerprint_secrets[0]),
        render=to_payment_reply,
        background=background,
    )


def _force_cancel(
    settings: Settings,
    store: Store,
    processor: Processor,
    clock: Clock,
    background: Background,
    reconcile: Reconcile,
) -> ForceCancelOrder:
    return ForceCancelOrder(
        store=store,
        processor=processor,
        processor_name=settings.processor_name,
        timeout_seconds=settings.charge_timeout_seconds,
        clock=clock,
        new_id=new_id,
        render_order=to_order_reply,
        render_payment=to_payment_reply,
        refund=reconcile.refund,
        background=background,
    )


def _reconcile(settings: Settings, store: Store, processor: Processor, clock: Clock, log: CallLog) -> Reconcile:
    return Reconcile(
        store=store,
        processor=processor,
        clock=clock,
        render=to_payment_reply,
        limits=ReconcileLimits(
            processor_name=settings.processor_name,
            every_seconds=settings.reconcile_every_seconds,
            timeout_seconds=settings.charge_timeout_seconds,
            compare_every_seconds=settings.compare_every_seconds,
            compare_timeout_seconds=_COMPARE_TIMEOUT_SECONDS,
        ),
        on_finding=lambda finding: log.finding(finding.kind, payment_id=finding.key),
        on_fault=log.fault,
    )


def _watching(settings: Settings, store: Store, log: CallLog) -> WatchDeclines:
    return WatchDeclines(
        store=store,
        limits=DeclineLimits(settings.alert_declines_per_day_max, settings.alert_decline_ratio_max),
        every_seconds=settings.alert_every_seconds,
        on_unusual=lambda day, expected: log.declines_unusual(
            declined=day.declined, expected=round(expected), answered=day.answered
        ),
        on_fault=log.fault,
    )


def _changed(log: CallLog, loop: FanOutEvents | DeliverWebhooks, what: str, subject_id: str) -> None:
    log.change(what, subject_id)
    loop.wake()


def _fan_out(settings: Settings, database: Database, deliver: DeliverWebhooks, log: CallLog) -> FanOutEvents:
    return FanOutEvents(
        outbox=DatabaseOutbox(database),
        bodies=_bodies(settings),
        every_seconds=settings.webhook_poll_seconds,
        on_deliveries=deliver.wake,
        on_set_aside=lambda event_id: log.event("event set aside", event=event_id),
        on_fault=log.fault,
    )


def _bodies(settings: Settings) -> JsonBodies:
    return JsonBodies(public_url=settings.public_url)


def _deliver(
    settings: Settings, database: Database, receivers: Receivers, signer: Ed25519Signer, clock: Clock, log: CallLog
) -> DeliverWebhooks:
    return DeliverWebhooks(
        outbox=DatabaseOutbox(database),
        receivers=receivers,
        sign=SignWebhook(box=FernetBox(settings.sealing_keys), signer=signer, clock=clock),
        clock=clock,
        every_seconds=settings.webhook_poll_seconds,
        sends_max=settings.webhook_sends_max,
        on_dead=lambda ended: log.event("webhook given up", delivery=ended.delivery_id, endpoint=ended.endpoint_id),
        on_disabled=lambda endpoint: log.event("webhook disabled", endpoint=endpoint.id, because=endpoint.because),
        on_fault=log.fault,
    )


def _receivers(settings: Settings) -> Receivers:
    return ReceiversOnDemand(
        Rules(
            allows_http=settings.env is Environment.DEVELOPMENT,
            ports=settings.webhook_port_numbers,
            networks=settings.webhook_networks,
        )
    )


def _keeping(settings: Settings, store: Store, log: CallLog) -> list[Loop]:
    """What is made of the audit log."""
    return [
        AddUpStatistics(store=store, on_fault=log.fault),
        _watching(settings, store, log),
        *_sealing(settings, store, log),
    ]


def _sealing(settings: Settings, store: Store, log: CallLog) -> list[SealAuditLog]:
    """None without a key, which only development can be. Raises SettingsFault."""
    if settings.audit_signing_key is None:
        if settings.env is Environment.PRODUCTION:
            raise SettingsFault("PAYORDER_AUDIT_SIGNING_KEY: must be given in production")
        log.event("audit log not sealed", reason="PAYORDER_AUDIT_SIGNING_KEY is not set")
        return []
    sealing = SealAuditLog(
        store=store,
        signer=_load_signer("PAYORDER_AUDIT_SIGNING_KEY", settings.audit_signing_key),
        every_seconds=settings.audit_seal_every_seconds,
        on_seal=lambda seal: log.event(
            "audit log sealed", number=seal.number, entries=seal.entry_count, digest=seal.hash.hex(), key=seal.key_id
        ),
        on_fault=log.fault,
    )
    return [sealing]


def _load_signer(setting: str, path: str) -> Ed25519Signer:
    try:
        return Ed25519Signer.read(Path(path))
    except NoSigningKey as error:
        raise SettingsFault(f"{setting}: cannot be read as an Ed25519 private key in PEM") from error


def _receipts(settings: Settings, store: Store, signer: Ed25519Signer) -> Receipts:
    sign = SignReceipt(signer=signer, public_url=settings.public_url)
    return Receipts(store=store, sign=sign, printer=Printer(), keys=_receipt_keys(settings, signer))


def _receipt_signer(settings: Settings, log: CallLog) -> Ed25519Signer:
    """In development a key that is forgotten with the process will do. Raises SettingsFault."""
    if settings.receipt_signing_key is not None:
        return _load_signer("PAYORDER_RECEIPT_SIGNING_KEY", settings.receipt_signing_key)
    if settings.env is Environment.PRODUCTION:
        raise SettingsFault("PAYORDER_RECEIPT_SIGNING_KEY: must be given in production")
    log.event("receipts signed with a key of this process", reason="PAYORDER_RECEIPT_SIGNING_KEY is not set")
    return Ed25519Signer.generate()


def _receipt_keys(settings: Settings, signer: Ed25519Signer) -> list[PublicKey]:
    """The key that signs, and those of before, each once. Raises SettingsFault."""
    try:
        previous = read_key_set(Path(settings.receipt_keys_previous)) if settings.receipt_keys_previous else []
    except NoSigningKey as error:
        raise SettingsFault("PAYORDER_RECEIPT_KEYS_PREVIOUS: cannot be read as a key set (RFC 7517)") from error
    return list({key.key_id: key for key in (signer.public_key, *previous)}.values())


def _tokens(settings: Settings, log: CallLog) -> JwtVerifier:
    rules = TokenRules(
        audience=settings.audience,
        types=frozenset(settings.token_types.lower().split()),
        lifetime_seconds_max=settings.token_lifetime_seconds_max,
    )
    return JwtVerifier({issuer: _keys(settings, issuer, log) for issuer in settings.issuers}, rules)


def _keys(settings: Settings, issuer: str, log: CallLog) -> KeySet:
    if settings.jwks is None or settings.jwks.startswith(("http://", "https://")):
        return _remote_keys(settings, issuer, log)
    try:
        return FileKeySet(Path(settings.jwks))
    except (OSError, NoKeySet) as error:
        raise SettingsFault("PAYORDER_JWKS: cannot be read as a key set (RFC 7517)") from error


def _remote_keys(settings: Settings, issuer: str, log: CallLog) -> KeySet:
    from payorder.adapters.tokens import remote  # noqa: PLC0415 - an HTTP client costs a quarter of a second to import

    allows_http = settings.env is Environment.DEVELOPMENT
    read = remote.key_set_at(settings.jwks) if settings.jwks else remote.key_set_of(issuer, allows_http=allows_http)
    return remote.RemoteKeySet(read, on_failure=lambda cause: log.event("no keys", issuer=issuer, cause=cause))


def _disabled(settings: Settings) -> Container[str]:
    if settings.disabled_subjects is None:
        return frozenset()
    try:
        return DisabledSubjects(settings.disabled_subjects)
    except (OSError, ValueError) as error:
        raise SettingsFault("PAYORDER_DISABLED_SUBJECTS: cannot be read as lines of UTF-8") from error


def _server_limits(settings: Settings, shares_port: bool) -> ServerLimits:
    return ServerLimits(
        listen=settings.listen,
        shares_port=shares_port,
        request_bytes_max=settings.request_bytes_max,
        calls_max=settings.calls_max,
        serves_reflection=settings.serves_reflection,
    )
