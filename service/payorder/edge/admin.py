"""AdminService: translation between protobuf and the workflows. steps.py records that somebody has read."""

from typing import Any

import grpc

from payments.v1.admin_service_pb2 import (
    AdminServiceListOrdersRequest,
    AdminServiceListOrdersResponse,
    AdminServiceListWebhookEndpointsRequest,
    AdminServiceListWebhookEndpointsResponse,
    AuditLog,
    DashboardStats,
    DisableWebhookEndpointRequest,
    EnableWebhookEndpointRequest,
    ForceCancelOrderRequest,
    GetAuditLogRequest,
    GetDashboardStatsRequest,
    ListAuditLogsRequest,
    ListAuditLogsResponse,
    UpdateOrderStatusRequest,
)
from payments.v1.admin_service_pb2_grpc import AdminServiceServicer
from payments.v1.order_pb2 import Order as OrderMessage
from payments.v1.webhook_pb2 import WebhookEndpoint
from payorder.domain.states import OrderStatus
from payorder.edge.caller import current_origin
from payorder.edge.idempotency import IdempotencyKeys
from payorder.edge.orders import answered
from payorder.edge.page_tokens import to_token
from payorder.edge.translate import to_id, to_order_message
from payorder.edge.translate_admin import (
    to_dashboard_message,
    to_endpoint_filter,
    to_entry_filter,
    to_entry_message,
    to_filtered_page,
    to_order_filter,
)
from payorder.edge.translate_webhooks import to_overseen_message
from payorder.ports.endpoints import EverybodysEndpoints
from payorder.ports.store import Store
from payorder.workflows.force_cancel_order import ForceCancelCommand, ForceCancelOrder
from payorder.workflows.fulfil_order import FulfilOrder
from payorder.workflows.oversee_webhooks import OverseeWebhooks

Context = grpc.aio.ServicerContext[Any, Any]


class AdminServicer(AdminServiceServicer):
    def __init__(
        self,
        *,
        force_cancel: ForceCancelOrder,
        fulfil_order: FulfilOrder,
        oversee: OverseeWebhooks,
        endpoints: EverybodysEndpoints,
        store: Store,
        keys: IdempotencyKeys,
    ) -> None:
        self._force_cancel = force_cancel
        self._fulfil_order = fulfil_order
        self._oversee = oversee
        self._endpoints = endpoints
        self._store = store
        self._keys = keys

    async def ListOrders(
        self, request: AdminServiceListOrdersRequest, context: Context
    ) -> AdminServiceListOrdersResponse:
        wanted = to_order_filter(request)
        found = await self._store.find_orders(wanted, to_filtered_page(request, wanted))
        return AdminServiceListOrdersResponse(
            data=map(to_order_message, found.orders), next_page_token=to_token(found.go_on_after, wanted)
        )

    async def ForceCancelOrder(self, request: ForceCancelOrderRequest, context: Context) -> OrderMessage:
        key = self._keys.of(request)
        command = ForceCancelCommand(to_id(request.order_id), request.reason, current_origin(), key)
        return await answered(context, await self._force_cancel(command), [])

    async def UpdateOrderStatus(self, request: UpdateOrderStatusRequest, context: Context) -> OrderMessage:
        key, status = self._keys.of(request), OrderStatus(request.status)
        fulfilled = await self._fulfil_order(to_id(request.order_id), status, current_origin(), key)
        return await answered(context, fulfilled, [])

    async def ListWebhookEndpoints(
        self, request: AdminServiceListWebhookEndpointsRequest, context: Context
    ) -> AdminServiceListWebhookEndpointsResponse:
        wanted = to_endpoint_filter(request)
        found = await self._endpoints.find_endpoints(wanted, to_filtered_page(request, wanted))
        return AdminServiceListWebhookEndpointsResponse(
            data=map(to_overseen_message, found.endpoints), next_page_token=to_token(found.go_on_after, wanted)
        )

    async def DisableWebhookEndpoint(self, request: DisableWebhookEndpointRequest, context: Context) -> WebhookEndpoint:
        endpoint_id = to_id(request.endpoint_id)
        return to_overseen_message(await self._oversee.disable(endpoint_id, request.reason, current_origin()))

    async def EnableWebhookEndpoint(self, request: EnableWebhookEndpointRequest, context: Context) -> WebhookEndpoint:
        endpoint_id = to_id(request.endpoint_id)
        return to_overseen_message(await self._oversee.enable(endpoint_id, request.reason, current_origin()))

    async def GetDashboardStats(self, request: GetDashboardStatsRequest, context: Context) -> DashboardStats:
        return to_dashboard_message(await self._store.get_dashboard())

    async def ListAuditLogs(self, request: ListAuditLogsRequest, context: Context) -> ListAuditLogsResponse:
        wanted = to_entry_filter(request)
        page = await self._store.list_entries(wanted, to_filtered_page(request, wanted))
        last = page.items[-1].id if page.has_more else None
        return ListAuditLogsResponse(data=map(to_entry_message, page.items), next_page_token=to_token(last, wanted))

    async def GetAuditLog(self, request: GetAuditLogRequest, context: Context) -> AuditLog:
        return to_entry_message(await self._store.get_entry(to_id(request.entry_id)))
