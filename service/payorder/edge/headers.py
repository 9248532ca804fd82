"""What the REST edge turns into headers of its answer: initial metadata of the RPC."""

from collections.abc import Sequence
from typing import Any

import grpc

from payorder.edge.metadata import metadata_values

# Set by rest_edge.lua on what comes over REST.
_FROM_REST = "x-edge"


def is_from_rest() -> bool:
    return bool(metadata_values(_FROM_REST))


def location_of(path: str) -> list[tuple[str, str]]:
    """Where what was created is to be found, for a caller over REST. One over gRPC has its id in the answer."""
    return only_over_rest([("location", path)])


def only_over_rest(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return headers if is_from_rest() else []


async def send_headers(context: "grpc.aio.ServicerContext[Any, Any]", headers: Sequence[tuple[str, str]]) -> None:
    # With none to send, the answer goes out in one piece, which is cheaper.
    if headers:
        await context.send_initial_metadata(tuple(headers))
