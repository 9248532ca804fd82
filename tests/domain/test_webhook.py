"""Who may enable an endpoint, and what becomes of what is known of its failures."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from payorder.domain.errors import WebhookDisabled
from payorder.domain.origin import Origin
from payorder.domain.webhook import DisabledBecause, Endpoint, EndpointChange, EndpointState

NOON, LATER = datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 13, tzinfo=UTC)
ALICE, SERVICE = Origin("alice"), Origin("alice", acts_for_any_owner=True)
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


EVERY_REASON = [None, *DisabledBecause]


@pytest.mark.parametrize("because", EVERY_REASON)
def test_an_owner_enables_whatever_no_administrator_has_disabled(because: DisabledBecause | None) -> None:
    endpoint = an_endpoint(because)
    if because is DisabledBecause.ADMINISTRATOR:
        with pytest.raises(WebhookDisabled):
            endpoint.changed(EndpointChange(state=ENABLED), LATER, ALICE)
        return
    enabled = endpoint.changed(EndpointChange(state=ENABLED), LATER, ALICE)
    assert (ENABLED, None, LATER) == (enabled.state, enabled.disabled_because, enabled.updated_at)


@pytest.mark.parametrize("because", EVERY_REASON)
def test_an_owner_disables_and_takes_no_other_reason_away(because: DisabledBecause | None) -> None:
    disabled = an_endpoint(because).changed(EndpointChange(state=DISABLED), LATER, ALICE)
    assert (DISABLED, because or DisabledBecause.OWNER) == (disabled.state, disabled.disabled_because)


@pytest.mark.parametrize("because", EVERY_REASON)
def test_an_administrator_disables_and_enables_whatever_it_was(because: DisabledBecause | None) -> None:
    disabled = an_endpoint(because).disabled_by_administrator(LATER)
    assert (DISABLED, DisabledBecause.ADMINISTRATOR) == (disabled.state, disabled.disabled_because)
    assert disabled is disabled.disabled_by_administrator(NOON)
    for endpoint in (an_endpoint(because), disabled):
        enabled = endpoint.enabled_by_administrator(LATER, is_done=False)
        assert (ENABLED, None) == (enabled.state, enabled.disabled_because)
        assert enabled is enabled.enabled_by_administrator(NOON, is_done=False)


def test_a_callback_that_is_done_stays_done() -> None:
    done = an_endpoint(DisabledBecause.DONE, order_id="order")
    assert done is done.enabled_by_administrator(LATER, is_done=True)
    again = done.disabled_by_administrator(LATER).enabled_by_administrator(LATER, is_done=True)
    assert (DISABLED, DisabledBecause.DONE) == (again.state, again.disabled_because)


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
    assert (NOON if fails else None) == an_endpoint().changed(change, LATER, ALICE).failing_since


@pytest.mark.parametrize("origin", [ALICE, SERVICE])
def test_a_url_is_trusted_as_who_has_given_it_and_as_long_as_it_stays(origin: Origin) -> None:
    for was_by_service in (False, True):
        endpoint = an_endpoint(url_by_service=was_by_service)
        assert was_by_service is endpoint.changed(EndpointChange(description="x"), LATER, origin).url_by_service
        # The same again too: it was vetted as what it is now.
        given = endpoint.changed(EndpointChange(url=endpoint.url), LATER, origin)
        assert origin.acts_for_any_owner is given.url_by_service


def test_what_an_administrator_enables_has_not_failed_yet() -> None:
    for because in DisabledBecause:
        assert an_endpoint(because).enabled_by_administrator(LATER, is_done=False).failing_since is None
