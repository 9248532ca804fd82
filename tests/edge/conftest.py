"""What the tests of the edge share: its doors, and orders in every state that a caller can bring about."""

import pytest

from support.doors import Door
from support.orders import Orders
from support.stack import Stack

DOORS = ("rest", "grpc", "grpc_through_envoy")


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, stack: Stack) -> Door:
    return getattr(stack, request.param)


@pytest.fixture
def orders(stack: Stack) -> Orders:
    return Orders(stack)
