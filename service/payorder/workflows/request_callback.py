"""Be told once, at a URL, how an order ends."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from payorder.domain.idempotency import IdempotencyKey, Replay, Reply
from payorder.domain.money import Money
from payorder.domain.order import Order
from payorder.domain.origin import Origin
from payorder.domain.states import OrderStatus
from payorder.domain.webhook import EVENT_TYPES, Endpoint, EndpointState
from payorder.ports.audit import CallRecord
from payorder.ports.clock import Clock
from payorder.ports.endpoints import Endpoints, NewCallback, NewDelivery
from payorder.ports.receivers import Receivers
from payorder.workflows.manage_webhooks import refuse_unless_vetted

# Of one order: nobody needs more, and each is somewhere that we send to.
_CALLBACKS_MAX = 10
# What a callback says of an order that has ended; of one that is placed it says nothing yet.
_ENDED: Mapping[OrderStatus, str] = {
    OrderStatus.APPROVED: "COMPLETED",
    OrderStatus.SHIPPED: "COMPLETED",
    OrderStatus.DELIVERED: "COMPLETED",
    OrderStatus.CANCELLED: "FAILED",
}


@dataclass(frozen=True, slots=True)
class RequestCallbackCommand:
    order_id: str
    origin: Origin
    amount: Money
    url: str
    key: IdempotencyKey | None


class RequestCallback:
    def __init__(
        self,
        *,
        endpoints: Endpoints,
        receivers: Receivers,
        clock: Clock,
        new_id: Callable[[], str],
        reply: Reply,
        render: Callable[[str, Order, str, datetime], bytes],
    ) -> None:
        """`reply` is the answer to all of them; `render` makes the body of an endpoint's id, the order and a status."""
        self._endpoints = endpoints
        self._receivers = receivers
        self._clock = clock
        self._new_id = new_id
        self._reply = reply
        self._render = render

    async def __call__(self, command: RequestCallbackCommand) -> Replay | None:
        """None, or the answer that this key got before.

        Raises InvalidFields for a URL that is refused, OrderNotFound, CurrencyMismatch, AmountMismatch,
        WebhookLimitReached, IdempotencyKeyReused.
        """
        caller, now = command.origin.actor, self._clock.now()
        # First, because what was answered is answered again, also when by now nothing may be sent to that URL.
        if command.key and (replay := await self._endpoints.find_callback_reply(caller, command.key, now)):
            return replay
        await refuse_unless_vetted(self._receivers, "callbackUrl", command.url, command.origin)
        endpoint = self._endpoint(command)
        callback = NewCallback(
            endpoint=endpoint,
            order_id=command.order_id,
            amount=command.amount,
            owner=command.origin.owner,
            reply=self._reply,
            key=command.key,
            if_ended=partial(self._if_ended, endpoint),
        )
        call = CallRecord(
            "OrderService/RequestCallback",
            "done",
            command.origin,
            json.dumps({"endpointId": endpoint.id, "orderId": command.order_id}),
        )
        return await self._endpoints.add_callback(callback, call, at_most=_CALLBACKS_MAX)

    def _endpoint(self, command: RequestCallbackCommand) -> Endpoint:
        now = self._clock.now()
        return Endpoint(
            id=self._new_id(),
            created_by=command.origin.actor,
            owner=None,
            url=command.url,
            description=None,
            event_types=frozenset(),
            state=EndpointState.ENABLED,
            created_at=now,
            updated_at=now,
            order_id=command.order_id,
            url_by_service=command.origin.acts_for_any_owner,
        )

    def _if_ended(self, endpoint: Endpoint, order: Order) -> NewDelivery | None:
        status = _ENDED.get(order.status)
        if status is None:
            return None
        return NewDelivery(
            id=self._new_id(),
            endpoint_id=endpoint.id,
            event_id=self._new_id(),
            event_type=EVENT_TYPES[f"order.{order.status}"],
            body=self._render(endpoint.id, order, status, endpoint.created_at),
            at=endpoint.created_at,
            order_id=order.id,
        )
