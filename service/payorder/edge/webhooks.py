"""WebhookService: translation between protobuf and the workflow."""

from typing import Any

import grpc

from payments.v1.webhook_pb2 import WebhookDelivery, WebhookEndpoint
from payments.v1.webhook_service_pb2 import (
    CreateWebhookEndpointRequest,
    DeleteWebhookEndpointRequest,
    DeleteWebhookEndpointResponse,
    GetWebhookEndpointRequest,
    ListDeliveriesRequest,
    ListDeliveriesResponse,
    ListWebhookEndpointsRequest,
    ListWebhookEndpointsResponse,
    ReplayDeliveriesRequest,
    ReplayDeliveriesResponse,
    ReplayDeliveryRequest,
    RotateSecretRequest,
    SendTestEventRequest,
    UpdateWebhookEndpointRequest,
)
from payments.v1.webhook_service_pb2_grpc import WebhookServiceServicer
from payorder.edge.caller import current_origin
from payorder.edge.headers import location_of, send_headers
from payorder.edge.page_tokens import from_token, to_token
from payorder.edge.translate import to_id, to_next_page_token, to_page_request, to_time
from payorder.edge.translate_webhooks import (
    to_create_command,
    to_delivery_filter,
    to_delivery_message,
    to_endpoint_change,
    to_endpoint_message,
    to_filtered_page,
    to_overlap_seconds,
)
from payorder.ports.endpoints import Endpoints
from payorder.workflows.manage_webhooks import ManageWebhooks

Context = grpc.aio.ServicerContext[Any, Any]


class WebhookServicer(WebhookServiceServicer):
    def __init__(self, *, manage: ManageWebhooks, endpoints: Endpoints) -> None:
        self._manage = manage
        self._endpoints = endpoints

    async def CreateWebhookEndpoint(self, request: CreateWebhookEndpointRequest, context: Context) -> WebhookEndpoint:
        endpoint, secret = await self._manage.create(to_create_command(request))
        await send_headers(context, location_of(f"/webhooks/{endpoint.id}"))
        return to_endpoint_message(endpoint, secret)

    async def ListWebhookEndpoints(
        self, request: ListWebhookEndpointsRequest, context: Context
    ) -> ListWebhookEndpointsResponse:
        caller = current_origin().actor
        if request.HasField("order_id"):
            callbacks = await self._endpoints.list_callbacks(caller, to_id(request.order_id))
            return ListWebhookEndpointsResponse(data=map(to_endpoint_message, callbacks))
        page = await self._endpoints.list_endpoints(caller, to_page_request(request))
        return ListWebhookEndpointsResponse(
            data=map(to_endpoint_message, page.items), next_page_token=to_next_page_token(page)
        )

    async def GetWebhookEndpoint(self, request: GetWebhookEndpointRequest, context: Context) -> WebhookEndpoint:
        endpoint = await self._endpoints.get_endpoint(to_id(request.endpoint_id), current_origin().actor)
        return to_endpoint_message(endpoint)

    async def UpdateWebhookEndpoint(self, request: UpdateWebhookEndpointRequest, context: Context) -> WebhookEndpoint:
        change = to_endpoint_change(request)
        return to_endpoint_message(await self._manage.update(to_id(request.endpoint_id), change, current_origin()))

    async def DeleteWebhookEndpoint(
        self, request: DeleteWebhookEndpointRequest, context: Context
    ) -> DeleteWebhookEndpointResponse:
        await self._manage.delete(to_id(request.endpoint_id), current_origin())
        return DeleteWebhookEndpointResponse()

    async def RotateSecret(self, request: RotateSecretRequest, context: Context) -> WebhookEndpoint:
        overlap_seconds = to_overlap_seconds(request)
        rotated = await self._manage.rotate(to_id(request.endpoint_id), overlap_seconds, current_origin())
        return to_endpoint_message(*rotated)

    async def SendTestEvent(self, request: SendTestEventRequest, context: Context) -> WebhookDelivery:
        return to_delivery_message(await self._manage.send_test(to_id(request.endpoint_id), current_origin()))

    async def ListDeliveries(self, request: ListDeliveriesRequest, context: Context) -> ListDeliveriesResponse:
        wanted = to_delivery_filter(request)
        page = to_filtered_page(request, wanted)
        found = await self._endpoints.find_deliveries(wanted, current_origin().actor, page)
        return ListDeliveriesResponse(
            data=map(to_delivery_message, found.deliveries), next_page_token=to_token(found.go_on_after, wanted)
        )

    async def ReplayDelivery(self, request: ReplayDeliveryRequest, context: Context) -> WebhookDelivery:
        endpoint_id, delivery_id = to_id(request.endpoint_id), to_id(request.delivery_id)
        return to_delivery_message(await self._manage.replay(endpoint_id, delivery_id, current_origin()))

    async def ReplayDeliveries(self, request: ReplayDeliveriesRequest, context: Context) -> ReplayDeliveriesResponse:
        endpoint_id, since = to_id(request.endpoint_id), to_time("since", request.since)
        wanted = (endpoint_id, since.isoformat())
        after = from_token(request.page_token, wanted)
        replayed = await self._manage.replay_since(endpoint_id, since, after, current_origin())
        return ReplayDeliveriesResponse(
            replayed_count=replayed.count, next_page_token=to_token(replayed.go_on_after, wanted)
        )
