"""The gRPC server: our services, health, reflection, and the limits of all of them."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from payments.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    order_service_pb2,
    order_service_pb2_grpc,
    payment_service_pb2,
    payment_service_pb2_grpc,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
)
from payorder.domain.errors import Refusal
from payorder.edge.admin import AdminServicer
from payorder.edge.orders import OrderServicer
from payorder.edge.payments import PaymentServicer
from payorder.edge.steps import CallSteps
from payorder.edge.validation import validate
from payorder.edge.webhooks import WebhookServicer
from payorder.ports.store import Store

SERVICES = (
    order_service_pb2.DESCRIPTOR.services_by_name["OrderService"].full_name,
    payment_service_pb2.DESCRIPTOR.services_by_name["PaymentService"].full_name,
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
    webhook_service_pb2.DESCRIPTOR.services_by_name["WebhookService"].full_name,
)
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
_HEALTH_CHECK_SECONDS = 1.0
# Until the first time that all is well: the schema may be on its way.
_FIRST_CHECKS_SECONDS = 0.1
_ANSWER_BYTES_MAX = 4 * 1024 * 1024
# Room for whatever Envoy lets through (16 KiB, counted otherwise), so that it is the verifier who refuses a long token.
_METADATA_BYTES_MAX = 18 * 1024


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """`shares_port`: whether others may listen there too, which only workers of one parent should."""

    listen: str
    shares_port: bool
    request_bytes_max: int
    calls_max: int
    serves_reflection: bool


class EdgeServer:
    """Serves from `start` to `stop`; NOT_SERVING while the store is away."""

    def __init__(
        self,
        *,
        orders: OrderServicer,
        payments: PaymentServicer,
        admin: AdminServicer,
        webhooks: WebhookServicer,
        steps: CallSteps,
        store: Store,
        limits: ServerLimits,
        was_ready: asyncio.Event,
    ) -> None:
        """`was_ready` is set as soon as the store is ready for the first time."""
        self._server = grpc.aio.server(maximum_concurrent_rpcs=limits.calls_max, options=_options(limits))
        ours: Any = _Stepped(self._server, steps)
        order_service_pb2_grpc.add_OrderServiceServicer_to_server(orders, ours)
        payment_service_pb2_grpc.add_PaymentServiceServicer_to_server(payments, ours)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, ours)
        webhook_service_pb2_grpc.add_WebhookServiceServicer_to_server(webhooks, ours)
        self._health = _Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if limits.serves_reflection:
            _add_reflection(self._server)
        self._orders = orders
        self._store = store
        self._limits = limits
        self._was_ready = was_ready
        self._stopping = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Returns the port. Raises OSError when the address is not to be had."""
        _read_rules()
        try:
            port = self._server.add_insecure_port(self._limits.listen)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._limits.listen}") from error
        await self._publish_health()
        await self._server.start()
        self._watching = asyncio.create_task(self._watch_health())
        return port

    async def stop(self, grace_seconds: float) -> None:
        """Tell watchers, refuse new calls, and wait for the running ones."""
        self._stopping.set()
        self._orders.end_watches()
        if self._watching is not None:
            await asyncio.wait({self._watching})
        await self._health.end()
        await self._server.stop(grace_seconds)

    async def _watch_health(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(
                    _HEALTH_CHECK_SECONDS if self._was_ready.is_set() else _FIRST_CHECKS_SECONDS
                ):
                    await self._stopping.wait()
            await self._publish_health()

    async def _publish_health(self) -> None:
        try:
            is_ready = await self._store.is_ready()
        except Exception:  # noqa: BLE001 - whatever it is, it is not well, and it must go on being asked
            is_ready = False
        if is_ready:
            self._was_ready.set()
        status = health_pb2.HealthCheckResponse.SERVING if is_ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *SERVICES):
            await self._health.set(service, status)


class _Stepped:
    """What generated code takes for the server: every method added to it is served inside the steps.

    An interceptor would be asked again for the same method at every call.
    """

    def __init__(self, server: grpc.aio.Server, steps: CallSteps) -> None:
        self._server = server
        self._steps = steps

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Generated code adds its methods twice; the other form tells their names."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        stepped = {name: self._steps.around(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, stepped),))


class _Writer:
    """Writes one message after the other, as gRPC wants it, also when whoever wanted one written was cancelled."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._writing: asyncio.Future[None] | None = None

    async def write(self, message: Any) -> None:
        if self._writing is not None:
            await asyncio.wait({self._writing})
        self._writing = asyncio.ensure_future(self._context.write(message))
        await asyncio.shield(self._writing)


class _Health(health.aio.HealthServicer):
    """Its watches end with the service: open ones would hold up every stop until the grace is over."""

    def __init__(self) -> None:
        super().__init__()
        self._has_ended = asyncio.Event()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        writer = _Writer(context)
        watching = asyncio.create_task(super().Watch(request, writer))  # type: ignore[arg-type]  # it only writes
        ending = asyncio.create_task(self._has_ended.wait())
        try:
            await asyncio.wait({watching, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            ending.cancel()
            await asyncio.gather(watching, ending, return_exceptions=True)
        await writer.write(health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING))

    async def end(self) -> None:
        self._has_ended.set()
        await self.enter_graceful_shutdown()


def _read_rules() -> None:
    """The first message of each kind takes ten times as long to validate as the next: it shall not be a caller's."""
    for file in (order_service_pb2, payment_service_pb2, admin_service_pb2, webhook_service_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                with suppress(Refusal):
                    validate(GetMessageClass(method.input_type)())


def _options(limits: ServerLimits) -> Sequence[tuple[str, Any]]:
    return (
        # Two services on one port would share its calls, which nobody has asked for.
        ("grpc.so_reuseport", int(limits.shares_port)),
        ("grpc.max_receive_message_length", limits.request_bytes_max),
        ("grpc.max_send_message_length", _ANSWER_BYTES_MAX),
        # Between the two gRPC would refuse at random.
        ("grpc.max_metadata_size", _METADATA_BYTES_MAX),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES_MAX),
        ("grpc.max_concurrent_streams", limits.calls_max),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    )


def _add_reflection(server: grpc.aio.Server) -> None:
    """Under both names: clients ask for v1 first. Its messages are those of v1alpha, in another package."""
    _describe_reflection_v1()
    servicer = ReflectionServicer((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME, REFLECTION_V1))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (reflection.SERVICE_NAME, REFLECTION_V1):
        service = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((service,))


def _describe_reflection_v1() -> None:
    """A service that is listed must also be described, or clients that walk the list fail."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    text = text_format.MessageToString(file).replace("v1alpha", "v1")
    descriptor_pool.Default().AddSerializedFile(text_format.Parse(text, FileDescriptorProto()).SerializeToString())
