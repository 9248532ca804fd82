"""OrderService: translation between protobuf and the workflows."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc

from payments.v1.order_event_pb2 import OrderEvent as OrderEventMessage
from payments.v1.order_pb2 import Order as OrderMessage
from payments.v1.order_service_pb2 import (
    CancelOrderRequest,
    CreateOrderRequest,
    GetOrderRequest,
    ListOrdersRequest,
    ListOrdersResponse,
    RequestCallbackRequest,
    RequestCallbackResponse,
    WatchOrderRequest,
)
from payments.v1.order_service_pb2_grpc import OrderServiceServicer
from payorder.domain.idempotency import Replay
from payorder.domain.order import Order
from payorder.edge.caller import current_origin, owner_named_in
from payorder.edge.headers import is_from_rest, location_of, send_headers
from payorder.edge.idempotency import IdempotencyKeys
from payorder.edge.receipts import Receipts
from payorder.edge.replies import REPLAYED
from payorder.edge.translate import (
    after_sequence_of,
    to_create_order_command,
    to_event_message,
    to_id,
    to_next_page_token,
    to_order_message,
    to_page_request,
)
from payorder.edge.translate_webhooks import to_callback_command
from payorder.ports.store import Store
from payorder.workflows.cancel_order import CancelOrder
from payorder.workflows.create_order import CreateOrder
from payorder.workflows.request_callback import RequestCallback
from payorder.workflows.watch_order import WatchOrder

Context = grpc.aio.ServicerContext[Any, Any]

# Over REST: nothing has happened, and the connection still stands. rest_edge makes a comment of it.
_QUIET = OrderEventMessage()


class OrderServicer(OrderServiceServicer):
    def __init__(
        self,
        *,
        create_order: CreateOrder,
        watch_order: WatchOrder,
        cancel_order: CancelOrder,
        request_callback: RequestCallback,
        store: Store,
        keys: IdempotencyKeys,
        receipts: Receipts,
    ) -> None:
        self._create_order = create_order
        self._watch_order = watch_order
        self._cancel_order = cancel_order
        self._request_callback = request_callback
        self._store = store
        self._keys = keys
        self._receipts = receipts

    async def CreateOrder(self, request: CreateOrderRequest, context: Context) -> OrderMessage:
        owner, key = owner_named_in(request), self._keys.of(request)
        created = await self._create_order(to_create_order_command(request, owner, current_origin(), key))
        order_id = created.resource_id if isinstance(created, Replay) else created.id
        return await answered(context, created, location_of(f"/orders/{order_id}"))

    async def GetOrder(self, request: GetOrderRequest, context: Context) -> OrderMessage:
        order = await self._store.get_order(to_id(request.order_id), current_origin().owner)
        message = to_order_message(order)
        if order.receipt is not None:
            message.receipt.CopyFrom(self._receipts.message_of(order.receipt))
        return message

    async def ListOrders(self, request: ListOrdersRequest, context: Context) -> ListOrdersResponse:
        page = await self._store.list_orders(owner_named_in(request), to_page_request(request))
        return ListOrdersResponse(data=map(to_order_message, page.items), next_page_token=to_next_page_token(page))

    async def WatchOrder(self, request: WatchOrderRequest, context: Context) -> AsyncGenerator[OrderEventMessage, None]:
        after, is_rest = after_sequence_of(request), is_from_rest()
        watching = self._watch_order(to_id(request.order_id), current_origin(), after)
        async with aclosing(watching) as all_news:
            async for news in all_news:
                if news is not None:
                    yield to_event_message(news)
                elif is_rest:
                    yield _QUIET

    def end_watches(self) -> None:
        """For good: the service stops."""
        self._watch_order.stop()

    async def CancelOrder(self, request: CancelOrderRequest, context: Context) -> OrderMessage:
        key = self._keys.of(request)
        cancelled = await self._cancel_order(to_id(request.order_id), current_origin(), key)
        return await answered(context, cancelled, [])

    async def RequestCallback(self, request: RequestCallbackRequest, context: Context) -> RequestCallbackResponse:
        key = self._keys.of(request)
        replay = await self._request_callback(to_callback_command(request, current_origin(), key))
        await send_headers(context, [REPLAYED] if replay else [])
        return RequestCallbackResponse()


async def answered(context: Context, result: Replay | Order, headers: list[tuple[str, str]]) -> OrderMessage:
    if isinstance(result, Replay):
        await send_headers(context, [*headers, REPLAYED])
        return OrderMessage.FromString(result.reply.body)
    await send_headers(context, headers)
    return to_order_message(result)
