"""Reflection under both of its names: what is served can be listed and described, and nothing of it in production."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from support.service import Service, serving

NAMES = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]
METHODS = {
    "payments.v1.OrderService": {
        *("CreateOrder", "GetOrder", "ListOrders", "WatchOrder", "CancelOrder", "RequestCallback"),
    },
    "payments.v1.PaymentService": {
        *("PayOrder", "GetPayment", "ListPayments", "GetReceipt", "RenderReceipt", "GetReceiptKeys"),
    },
    "payments.v1.AdminService": {
        "ListOrders",
        "ForceCancelOrder",
        "UpdateOrderStatus",
        "ListWebhookEndpoints",
        "DisableWebhookEndpoint",
        "EnableWebhookEndpoint",
        "GetDashboardStats",
        "ListAuditLogs",
        "GetAuditLog",
    },
    "payments.v1.WebhookService": {
        "CreateWebhookEndpoint",
        "ListWebhookEndpoints",
        "GetWebhookEndpoint",
        "UpdateWebhookEndpoint",
        "DeleteWebhookEndpoint",
        "RotateSecret",
        "SendTestEvent",
        "ListDeliveries",
        "ReplayDelivery",
        "ReplayDeliveries",
    },
}
SERVICES = {*METHODS, "grpc.health.v1.Health", *NAMES}


async def ask(service: Service, name: str, *questions: ServerReflectionRequest) -> list[ServerReflectionResponse]:
    call = service.grpc.channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )

    async def asked() -> AsyncIterator[ServerReflectionRequest]:
        for question in questions:
            yield question

    return [answer async for answer in call(asked(), timeout=20)]


@pytest.mark.parametrize("name", NAMES)
async def test_every_service_is_listed(service: Service, name: str) -> None:
    (answer,) = await ask(service, name, ServerReflectionRequest(list_services=""))
    assert SERVICES == {each.name for each in answer.list_services_response.service}


@pytest.mark.parametrize("name", NAMES)
async def test_every_listed_service_is_described_with_all_that_it_needs(service: Service, name: str) -> None:
    pool = DescriptorPool()
    questions = [ServerReflectionRequest(file_containing_symbol=symbol) for symbol in sorted(SERVICES)]
    files: dict[str, FileDescriptorProto] = {}
    while questions:
        for answer in await ask(service, name, *questions):
            assert "file_descriptor_response" == answer.WhichOneof("message_response")
            for data in answer.file_descriptor_response.file_descriptor_proto:
                file = FileDescriptorProto.FromString(data)
                files[file.name] = file
        missing = {needed for file in files.values() for needed in file.dependency} - files.keys()
        questions = [ServerReflectionRequest(file_by_filename=path) for path in sorted(missing)]
    for file in in_order(files):
        pool.Add(file)
    described = {name: {method.name for method in pool.FindServiceByName(name).methods} for name in METHODS}
    assert METHODS == described


def in_order(files: dict[str, FileDescriptorProto]) -> list[FileDescriptorProto]:
    """Each after what it needs."""
    ordered: dict[str, FileDescriptorProto] = {}

    def visit(file: FileDescriptorProto) -> None:
        for needed in file.dependency:
            visit(files[needed])
        ordered[file.name] = file

    for file in files.values():
        visit(file)
    return list(ordered.values())


@pytest.mark.parametrize("name", NAMES)
async def test_reflection_is_not_there_when_it_is_switched_off(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, f"sqlite:///{tmp_path / 'payorder.db'}", reflection=False) as service:
        # In one piece: a question after the answer would be a fault of the client's own.
        assert "UNIMPLEMENTED" == await service.code_of(f"/{name}/ServerReflectionInfo")
