"""Manage webhook endpoints: where events are sent, with which secret, and what is sent again.

A URL is vetted before it is stored, and again before everything that is sent there. A secret is made here, stored
sealed, and told to the caller once.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from payorder.domain.errors import FieldFault, InvalidFields
from payorder.domain.origin import Origin
from payorder.domain.secret import Secret
from payorder.domain.webhook import TEST_EVENT, Endpoint, EndpointChange, EndpointState
from payorder.ports.audit import CallRecord
from payorder.ports.clock import Clock
from payorder.ports.endpoints import Delivered, Endpoints, NewDelivery, NewSecret, Replayed, ReplayRequest
from payorder.ports.receivers import Receivers, UrlRefused
from payorder.ports.secret_box import SecretBox

_TESTS_PER_MINUTE_MAX = 20


@dataclass(frozen=True, slots=True)
class CreateEndpointCommand:
    """`owner` is whose orders it hears of, None for everybody's; no `event_types` means all."""

    owner: str | None
    origin: Origin
    url: str
    description: str | None
    event_types: frozenset[str]


class ManageWebhooks:
    """What `origin` names no endpoint of their own raises WebhookNotFound."""

    def __init__(
        self,
        *,
        endpoints: Endpoints,
        receivers: Receivers,
        secrets: SecretBox,
        clock: Clock,
        new_id: Callable[[], str],
        new_secret: Callable[[], Secret],
        render_test: Callable[[str, datetime], bytes],
        endpoints_max: int,
    ) -> None:
        """`render_test`: the body of a test event of that id, at that time. `endpoints_max`: of one caller."""
        self._endpoints = endpoints
        self._receivers = receivers
        self._secrets = secrets
        self._clock = clock
        self._new_id = new_id
        self._new_secret = new_secret
        self._render_test = render_test
        self._endpoints_max = endpoints_max

    async def create(self, command: CreateEndpointCommand) -> tuple[Endpoint, Secret]:
        """Raises InvalidFields for a URL that is refused, WebhookLimitReached."""
        await refuse_unless_vetted(self._receivers, "url", command.url, command.origin)
        secret, now = self._new_secret(), self._clock.now()
        endpoint = Endpoint(
            id=self._new_id(),
            created_by=command.origin.actor,
            owner=command.owner,
            url=command.url,
            description=command.description,
            event_types=command.event_types,
            state=EndpointState.ENABLED,
            created_at=now,
            updated_at=now,
            url_by_service=command.origin.acts_for_any_owner,
        )
        call = done("CreateWebhookEndpoint", command.origin, endpoint.id, userId=command.owner)
        await self._endpoints.add(endpoint, self._secrets.seal(secret), call, at_most=self._endpoints_max)
        return endpoint, secret

    async def update(self, endpoint_id: str, change: EndpointChange, origin: Origin) -> Endpoint:
        """Raises InvalidFields for a URL that is refused, WebhookDisabled."""
        if change.url is not None:
            await refuse_unless_vetted(self._receivers, "url", change.url, origin)
        changed = [name for name in EndpointChange.__slots__ if getattr(change, name) is not None]
        call = done("UpdateWebhookEndpoint", origin, endpoint_id, changed=changed, state=change.state)
        return await self._endpoints.update(endpoint_id, change, self._clock.now(), call)

    async def delete(self, endpoint_id: str, origin: Origin) -> None:
        await self._endpoints.delete(endpoint_id, done("DeleteWebhookEndpoint", origin, endpoint_id))

    async def rotate(self, endpoint_id: str, overlap_seconds: int, origin: Origin) -> tuple[Endpoint, Secret]:
        secret = self._new_secret()
        call = done("RotateSecret", origin, endpoint_id, overlapSeconds=overlap_seconds)
        sealed = NewSecret(self._secrets.seal(secret), overlap_seconds)
        return await self._endpoints.rotate(endpoint_id, sealed, self._clock.now(), call), secret

    async def send_test(self, endpoint_id: str, origin: Origin) -> Delivered:
        """Raises RateLimited."""
        event_id, now = self._new_id(), self._clock.now()
        delivery = NewDelivery(
            id=self._new_id(),
            endpoint_id=endpoint_id,
            event_id=event_id,
            event_type=TEST_EVENT,
            body=self._render_test(event_id, now),
            at=now,
        )
        call = done("SendTestEvent", origin, endpoint_id)
        return await self._endpoints.add_test(delivery, call, per_minute_max=_TESTS_PER_MINUTE_MAX)

    async def replay(self, endpoint_id: str, delivery_id: str, origin: Origin) -> Delivered:
        call = done("ReplayDelivery", origin, endpoint_id, deliveryId=delivery_id)
        return await self._endpoints.replay_delivery(endpoint_id, delivery_id, call)

    async def replay_since(self, endpoint_id: str, since: datetime, after: str | None, origin: Origin) -> Replayed:
        call = done("ReplayDeliveries", origin, endpoint_id, since=since.isoformat())
        wanted = ReplayRequest(endpoint_id, since, after)
        return await self._endpoints.replay_since(wanted, call)


async def refuse_unless_vetted(receivers: Receivers, field: str, url: str, origin: Origin) -> None:
    """Raises InvalidFields, which does not tell why: who could ask would learn what there is inside."""
    try:
        await receivers.vet(url, by_service=origin.acts_for_any_owner)
    except UrlRefused:
        raise InvalidFields([FieldFault(field, "url_refused", "is not a URL that may be sent to")]) from None


def done(method: str, origin: Origin, endpoint_id: str, **asked: object) -> CallRecord:
    """What the audit log says of a change: ids and names, and not the URL, which may itself be a secret."""
    detail = {"endpointId": endpoint_id} | {name: value for name, value in asked.items() if value is not None}
    return CallRecord(f"WebhookService/{method}", "done", origin, json.dumps(detail))
