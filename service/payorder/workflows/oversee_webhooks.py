"""Stop and start, for an administrator, what is sent to webhook endpoints and callbacks of anybody."""

import json

from payorder.domain.origin import Origin
from payorder.domain.webhook import Endpoint
from payorder.ports.audit import CallRecord
from payorder.ports.clock import Clock
from payorder.ports.endpoints import EverybodysEndpoints


class OverseeWebhooks:
    """Raises WebhookNotFound for what nobody has created. `reason` is for the audit log."""

    def __init__(self, *, endpoints: EverybodysEndpoints, clock: Clock) -> None:
        self._endpoints = endpoints
        self._clock = clock

    async def disable(self, endpoint_id: str, reason: str, origin: Origin) -> Endpoint:
        call = _done("DisableWebhookEndpoint", origin, endpoint_id, reason)
        return await self._endpoints.disable(endpoint_id, self._clock.now(), call)

    async def enable(self, endpoint_id: str, reason: str, origin: Origin) -> Endpoint:
        call = _done("EnableWebhookEndpoint", origin, endpoint_id, reason)
        return await self._endpoints.enable(endpoint_id, self._clock.now(), call)


def _done(method: str, origin: Origin, endpoint_id: str, reason: str) -> CallRecord:
    """What the audit log says: not the URL, which may itself be a secret, and the reason as it was given."""
    detail = json.dumps({"endpointId": endpoint_id, "reason": reason}, ensure_ascii=False)
    return CallRecord(f"AdminService/{method}", "done", origin, detail)
