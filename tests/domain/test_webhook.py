"""What becomes of what is known of an endpoint's failures."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from payorder.domain.webhook import DisabledBecause, Endpoint, EndpointChange, EndpointState

NOON, LATER = datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 13, tzinfo=UTC)
ENABLED, DISABLED = EndpointState.ENABLED, EndpointState.DISABLED


def an_endpoint(because: DisabledBecause | None = None, **changes: Any) -> Endpoint:
    endpoint = Endpoint(
        id="endpoint",
        created_by="alice",
        owner="alice",
        url="https://shop.example/",
        description=None,
        event_types=frozenset(),
        state=DISABLED if because else ENABLED,
        created_at=NOON,
        updated_at=NOON,
        disabled_because=because,
        failing_since=NOON,
    )
    return replace(endpoint, **changes)


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        (EndpointChange(), True),
        (EndpointChange(description="x", event_types=frozenset(["refund.failed"])), True),
        (EndpointChange(url="https://shop.example/", state=ENABLED), True),
        (EndpointChange(url="https://shop.example/other"), False),
        (EndpointChange(state=DISABLED), False),
    ],
)
def test_another_receiver_and_one_that_is_enabled_again_have_not_failed_yet(
    change: EndpointChange, fails: bool
) -> None:
    assert (NOON if fails else None) == an_endpoint().changed(change, LATER).failing_since
