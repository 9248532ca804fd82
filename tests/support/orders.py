"""Orders in every state that a caller can bring about."""

from typing import Any

from support.requests import ORDER, OUTCOME_UNKNOWN, payment
from support.stack import Stack


class Orders:
    """Makes orders of a subject by way of native gRPC."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    async def placed(self, *, subject: str = "alice", **changes: str) -> str:
        created = await self._stack.grpc.call("CreateOrder", ORDER | changes, token=self._stack.token(subject))
        assert ("OK", "placed") == (created.code, created.body["status"])
        return str(created.body["id"])

    async def in_state(self, state: str) -> str:
        """An order of alice's that is placed, paid, cancelled or processing; or bob's, or nobody's."""
        match state:
            case "nobody's":
                return "018f0000-0000-7000-8000-000000000000"
            case "bob's":
                return await self.placed(subject="bob")
        order = await self.placed()
        request = {"orderId": order, "payment": payment()}
        match state:
            case "paid":
                await self._good("PayOrder", request)
            case "processing":
                await self._good("PayOrder", request | {"payment": payment(number=OUTCOME_UNKNOWN)})
            case "cancelled":
                await self._good("CancelOrder", {"orderId": order})
        return order

    async def _good(self, rpc: str, request: dict[str, Any]) -> None:
        answer = await self._stack.grpc.call(rpc, request, token=self._stack.token())
        assert "OK" == answer.code
