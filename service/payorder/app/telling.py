"""What tells others of orders and payments: webhooks, callbacks, watched orders, receipts."""

from collections.abc import Container
from dataclasses import dataclass, replace

from payorder.adapters.database.endpoint_store import DatabaseEndpoints
from payorder.adapters.database.listening import EventListener
from payorder.adapters.database.outbox import DatabaseOutbox
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.receipts.printer import Printer
from payorder.adapters.receivers.on_demand import ReceiversOnDemand
from payorder.adapters.receivers.rules import Rules
from payorder.adapters.sealing import FernetBox
from payorder.adapters.signing import Ed25519Signer
from payorder.adapters.system import new_id, new_webhook_secret
from payorder.app import trust
from payorder.app.ground import Ground
from payorder.config import Environment, Settings
from payorder.edge.event_bodies import JsonBodies, render_callback, render_test
from payorder.edge.receipts import Receipts
from payorder.edge.replies import to_callback_reply
from payorder.edge.webhooks import WebhookServicer
from payorder.ports.endpoints import EverybodysEndpoints
from payorder.ports.receivers import Receivers
from payorder.ports.store import Store
from payorder.workflows.deliver_webhooks import DeliverWebhooks
from payorder.workflows.fan_out_events import FanOutEvents
from payorder.workflows.forget_deliveries import ForgetDeliveries
from payorder.workflows.manage_webhooks import ManageWebhooks
from payorder.workflows.request_callback import RequestCallback
from payorder.workflows.sign_receipt import SignReceipt
from payorder.workflows.sign_webhook import SignWebhook
from payorder.workflows.watch_order import WatchedOrders, WatchLimits, WatchOrder

_DAY_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """What takes events out of the database, and sends them."""

    fan_out: FanOutEvents
    deliver: DeliverWebhooks
    forget: ForgetDeliveries


@dataclass(frozen=True, slots=True)
class Telling:
    """What callers have of it."""

    webhooks: WebhookServicer
    endpoints: EverybodysEndpoints
    request_callback: RequestCallback
    receipts: Receipts
    watch_order: WatchOrder


def receivers(settings: Settings) -> Receivers:
    of_services = Rules(
        allows_http=settings.env is Environment.DEVELOPMENT,
        ports=settings.webhook_port_numbers,
        networks=settings.webhook_networks,
    )
    is_for_all = settings.webhook_networks_allowed_to == "everybody"
    return ReceiversOnDemand(of_services if is_for_all else replace(of_services, networks=()), of_services=of_services)


def dispatcher(ground: Ground, to: Receivers, signer: Ed25519Signer, shut_out: Container[str]) -> Dispatcher:
    settings, log, outbox = ground.settings, ground.log, DatabaseOutbox(ground.database)
    deliver = DeliverWebhooks(
        outbox=outbox,
        bodies=_bodies(settings),
        receivers=to,
        shut_out=shut_out,
        sign=SignWebhook(box=FernetBox(settings.sealing_keys), signer=signer, clock=ground.clock),
        clock=ground.clock,
        every_seconds=settings.webhook_poll_seconds,
        sends_max=settings.webhook_sends_max,
        on_dead=lambda ended: log.event("webhook given up", delivery=ended.delivery_id, endpoint=ended.endpoint_id),
        on_disabled=lambda endpoint: log.event("webhook disabled", endpoint=endpoint.id, because=endpoint.because),
        on_fault=log.fault,
    )
    fan_out = FanOutEvents(
        outbox=outbox,
        bodies=_bodies(settings),
        every_seconds=settings.webhook_poll_seconds,
        on_deliveries=deliver.wake,
        on_set_aside=lambda event_id: log.event("event set aside", event=event_id),
        on_fault=log.fault,
    )
    kept_seconds = settings.webhook_kept_days * _DAY_SECONDS
    return Dispatcher(fan_out, deliver, ForgetDeliveries(outbox=outbox, kept_seconds=kept_seconds, on_fault=log.fault))


def telling(
    ground: Ground,
    store: DatabaseStore,
    to: Receivers,
    signer: Ed25519Signer,
    *,
    deliver: DeliverWebhooks,
    watched: WatchedOrders,
) -> Telling:
    endpoints = _endpoints(ground, deliver)
    request_callback = RequestCallback(
        endpoints=endpoints,
        receivers=to,
        clock=ground.clock,
        new_id=new_id,
        reply=to_callback_reply(),
        render=render_callback,
    )
    return Telling(
        webhooks=WebhookServicer(manage=_manage(ground, endpoints, to), endpoints=endpoints),
        endpoints=endpoints,
        request_callback=request_callback,
        receipts=_receipts(ground.settings, store, signer),
        watch_order=_watch_order(ground, store, watched),
    )


def _endpoints(ground: Ground, deliver: DeliverWebhooks) -> DatabaseEndpoints:
    def changed(what: str, subject_id: str) -> None:
        ground.log.change(what, subject_id)
        deliver.wake()

    return DatabaseEndpoints(ground.database, bodies=_bodies(ground.settings), on_change=changed)


def _manage(ground: Ground, endpoints: DatabaseEndpoints, to: Receivers) -> ManageWebhooks:
    return ManageWebhooks(
        endpoints=endpoints,
        receivers=to,
        secrets=FernetBox(ground.settings.sealing_keys),
        clock=ground.clock,
        new_id=new_id,
        new_secret=new_webhook_secret,
        render_test=render_test,
        endpoints_max=ground.settings.webhook_endpoints_max,
    )


def _receipts(settings: Settings, store: Store, signer: Ed25519Signer) -> Receipts:
    sign = SignReceipt(signer=signer, public_url=settings.public_url, seller=settings.seller)
    return Receipts(store=store, sign=sign, printer=Printer(), keys=trust.receipt_keys(settings, signer))


def _watch_order(ground: Ground, store: DatabaseStore, watched: WatchedOrders) -> WatchOrder:
    settings = ground.settings
    return WatchOrder(
        store=store,
        watched=watched,
        clock=ground.clock,
        limits=WatchLimits(
            at_most=settings.watches_max,
            per_caller=settings.watches_per_caller_max,
            life_seconds=settings.watch_life_seconds,
            quiet_seconds=settings.watch_quiet_seconds,
            poll_every_seconds=settings.watch_poll_seconds,
        ),
        on_fault=ground.log.fault,
    )


def listening(ground: Ground, watched: WatchedOrders) -> list[EventListener]:
    """Who hears of what other processes write: on SQLite nobody does, but by asking."""
    if ground.database.url.get_backend_name() == "sqlite":
        return []
    return [EventListener(ground.database.url, watched.wake)]


def _bodies(settings: Settings) -> JsonBodies:
    return JsonBodies(public_url=settings.public_url)
