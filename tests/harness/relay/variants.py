"""Deliberately broken ways out, each with what the checker has to call it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import text

from payorder.adapters.database import deliveries, fan_out
from payorder.domain.webhook import DeliveryState, Dispatch
from payorder.ports.outbox import Ended
from payorder.workflows.deliver_webhooks import DeliverWebhooks
from payorder.workflows.sign_webhook import SignWebhook

_NEWEST = text("SELECT coalesce(max(created_at), 0) FROM events WHERE fanned_out_at IS NOT NULL")


def _by_cursor() -> None:
    """Events are found by being behind the last one."""
    find = fan_out._find

    async def _find(connection: Any, at_most: int) -> Any:
        newest = (await connection.execute(_NEWEST)).scalar_one()
        return [event for event in await find(connection, at_most) if event.created_at > newest]

    fan_out._find = _find


def _marked_before_sent() -> None:
    attempt = DeliverWebhooks._attempt

    async def _attempt(self: Any, send: Any) -> None:
        dispatch = send.claimed.dispatch
        done = Ended(
            dispatch.delivery_id, dispatch.endpoint_id, dispatch.claim, DeliveryState.DELIVERED, status_class=2
        )
        await self._outbox.finish([done], self._bodies)
        await attempt(self, send)

    DeliverWebhooks._attempt = _attempt  # type: ignore[method-assign]


def _unsigned() -> None:
    sign = SignWebhook.__call__

    def __call__(self: SignWebhook, dispatch: Dispatch) -> Mapping[str, str]:  # noqa: N807 - replaces one
        return {name: value for name, value in sign(self, dispatch).items() if "signature" not in name}

    SignWebhook.__call__ = __call__  # type: ignore[method-assign]


def _rendered_again() -> None:
    to_dispatch = deliveries._to_dispatch

    def _to_dispatch(row: Any, *of_endpoint: Any) -> Dispatch:
        dispatch = to_dispatch(row, *of_endpoint)
        return replace(dispatch, body=dispatch.body + b" " * dispatch.claim)

    deliveries._to_dispatch = _to_dispatch


def _failures_forgotten() -> None:
    deliveries._FINISH = deliveries._FINISH.replace("WHERE was_sent", "WHERE was_sent AND new_state = 'delivered'")


VARIANTS: Mapping[str, tuple[Callable[[], None], str]] = {
    "the outbox by a cursor": (_by_cursor, "skipped"),
    "marked as delivered before it is sent": (_marked_before_sent, "lost"),
    "unsigned": (_unsigned, "unsigned"),
    "every attempt renders again": (_rendered_again, "differing"),
    "only what has arrived is written down": (_failures_forgotten, "forgotten"),
}
