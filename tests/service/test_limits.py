"""Calls that are too big, or to nowhere, are refused, and the service stays well."""

import pytest

from support.requests import ORDER
from support.service import Service

CREATE = "/payments.v1.OrderService/CreateOrder"


async def code_of(
    service: Service, method: str, body: bytes = b"", metadata: tuple[tuple[str, str | bytes], ...] = ()
) -> str:
    return await service.code_of(method, body, metadata=(*service.metadata, *metadata))


def description(length: int) -> bytes:
    """CreateOrderRequest with a description of that many bytes, field 4."""
    size = bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14])
    return b"\x22" + size + b"x" * length


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(description(64 * 1024 - 4), "INVALID_ARGUMENT", id="64 KiB is read"),
        pytest.param(description(64 * 1024 - 3), "RESOURCE_EXHAUSTED", id="a byte more is not"),
        pytest.param(description(1024 * 1024), "RESOURCE_EXHAUSTED", id="1 MiB"),
    ],
)
async def test_a_message_above_64_kib_is_refused_unread(service: Service, body: bytes, expected: str) -> None:
    assert expected == await code_of(service, CREATE, body)
    await is_well(service)


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param((("x-large", "v" * 20_000),), id="one value of 20 KB"),
        pytest.param((("x" * 20_000, "v"),), id="one name of 20 KB"),
        pytest.param(tuple((f"x-{number}", "v" * 100) for number in range(200)), id="200 values"),
        pytest.param((("x-large-bin", b"\0" * 20_000),), id="20 KB of bytes"),
        pytest.param((("authorization", "Bearer " + "v" * 20_000),), id="a token of 20 KB"),
    ],
)
async def test_metadata_of_20_kb_is_refused(service: Service, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
    assert "RESOURCE_EXHAUSTED" == await code_of(service, CREATE, metadata=metadata)
    await is_well(service)


@pytest.mark.parametrize(
    "method",
    [
        "/payments.v1.OrderService/DeleteOrder",
        "/payments.v1.orderservice/createorder",
        "/payments.v1.AdminService/DeleteOrder",
        "/payments.v1.OrderService/CreateOrder/",
        "//payments.v1.OrderService/CreateOrder",
        "/payments.v2.OrderService/CreateOrder",
        "/CreateOrder",
        "/",
    ],
)
async def test_an_unknown_method_is_unimplemented(service: Service, method: str) -> None:
    assert "UNIMPLEMENTED" == await code_of(service, method)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xff\xff\xff", id="a broken tag"),
        pytest.param(b"\x12\x05abc", id="a field that is cut off"),
        pytest.param(b"\x12\x02\xc3\x28", id="text that is not UTF-8"),
        pytest.param(b"\x0b" * 5000, id="groups without an end"),
    ],
)
async def test_bytes_that_are_no_message_do_no_harm(service: Service, body: bytes) -> None:
    assert "OK" != await code_of(service, CREATE, body)
    await is_well(service)


async def is_well(service: Service) -> None:
    created = await service.grpc.call("CreateOrder", ORDER, token=service.token())
    assert "OK" == created.code
