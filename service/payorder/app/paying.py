"""Orders and payments: what callers do with them, and what settles those that were left open."""

from importlib.metadata import entry_points

from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.system import new_id
from payorder.app.ground import Ground
from payorder.app.telling import Telling
from payorder.config import Settings, SettingsFault
from payorder.domain.fingerprint import SourceFingerprints
from payorder.domain.limits import AttemptLimits
from payorder.edge.admin import AdminServicer
from payorder.edge.idempotency import IdempotencyKeys
from payorder.edge.orders import OrderServicer
from payorder.edge.payments import PaymentServicer
from payorder.edge.replies import to_order_reply, to_payment_reply
from payorder.ports.processor import Processor, ProcessorFactory
from payorder.ports.store import Store
from payorder.workflows.background import Background
from payorder.workflows.cancel_order import CancelOrder
from payorder.workflows.create_order import CreateOrder
from payorder.workflows.fan_out_events import FanOutEvents
from payorder.workflows.force_cancel_order import ForceCancelOrder
from payorder.workflows.fulfil_order import FulfilOrder
from payorder.workflows.oversee_webhooks import OverseeWebhooks
from payorder.workflows.pay_order import ChargeLimits, PayOrder
from payorder.workflows.reconcile import Reconcile, ReconcileLimits
from payorder.workflows.watch_order import WatchedOrders

PROCESSORS = "payorder.processors"
_COMPARE_TIMEOUT_SECONDS = 60.0


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


def store_of(ground: Ground, fan_out: FanOutEvents, watched: WatchedOrders) -> DatabaseStore:
    def changed(what: str, subject_id: str, order_id: str) -> None:
        ground.log.change(what, subject_id)
        fan_out.wake()
        watched.wake(order_id)

    return DatabaseStore(
        ground.database,
        reconcile_after_seconds=ground.settings.reconcile_after_seconds,
        limits=_attempt_limits(ground.settings),
        on_change=changed,
    )


def _attempt_limits(settings: Settings) -> AttemptLimits:
    return AttemptLimits(
        declines_per_order=settings.declines_per_order_max,
        attempts_per_owner=settings.attempts_per_owner_max,
        attempts_per_source=settings.attempts_per_source_max,
        window_seconds=settings.limits_window_seconds,
    )


def reconcile_with(ground: Ground, store: Store, processor: Processor) -> Reconcile:
    settings, log = ground.settings, ground.log
    return Reconcile(
        store=store,
        processor=processor,
        clock=ground.clock,
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


class Servicers:
    """What is served, each made once. `reconcile` begins refunds, too."""

    def __init__(
        self, ground: Ground, store: Store, processor: Processor, *, background: Background, reconcile: Reconcile
    ) -> None:
        self._ground = ground
        self._store = store
        self._processor = processor
        self._background = background
        self._reconcile = reconcile
        self._keys = IdempotencyKeys(ground.settings.fingerprint_secrets)

    def orders(self, telling: Telling) -> OrderServicer:
        store, clock = self._store, self._ground.clock
        cancel_order = CancelOrder(
            store=store,
            clock=clock,
            new_id=new_id,
            render=to_order_reply,
            refund=self._reconcile.refund,
            background=self._background,
        )
        return OrderServicer(
            create_order=CreateOrder(store=store, clock=clock, new_id=new_id, render=to_order_reply),
            watch_order=telling.watch_order,
            cancel_order=cancel_order,
            request_callback=telling.request_callback,
            store=store,
            keys=self._keys,
            receipts=telling.receipts,
        )

    def payments(self, telling: Telling) -> PaymentServicer:
        return PaymentServicer(
            pay_order=self._pay_order(),
            store=self._store,
            keys=self._keys,
            receipts=telling.receipts,
            answer_within_seconds=self._ground.settings.answer_within_seconds,
        )

    def admin(self, telling: Telling) -> AdminServicer:
        return AdminServicer(
            force_cancel=self._force_cancel(),
            fulfil_order=FulfilOrder(store=self._store, clock=self._ground.clock, render=to_order_reply),
            oversee=OverseeWebhooks(endpoints=telling.endpoints, clock=self._ground.clock),
            endpoints=telling.endpoints,
            store=self._store,
            keys=self._keys,
        )

    def _pay_order(self) -> PayOrder:
        settings = self._ground.settings
        return PayOrder(
            store=self._store,
            processor=self._processor,
            processor_name=settings.processor_name,
            limits=ChargeLimits(
                timeout_seconds=settings.charge_timeout_seconds,
                send_within_seconds=settings.send_within_seconds,
                at_once=settings.charges_max,
                backlog=settings.backlog_max,
            ),
            clock=self._ground.clock,
            new_id=new_id,
            fingerprints=SourceFingerprints(settings.fingerprint_secrets[0]),
            render=to_payment_reply,
            background=self._background,
        )

    def _force_cancel(self) -> ForceCancelOrder:
        settings = self._ground.settings
        return ForceCancelOrder(
            store=self._store,
            processor=self._processor,
            processor_name=settings.processor_name,
            timeout_seconds=settings.charge_timeout_seconds,
            clock=self._ground.clock,
            new_id=new_id,
            render_order=to_order_reply,
            render_payment=to_payment_reply,
            refund=self._reconcile.refund,
            background=self._background,
        )
