"""A receiver that verifies as the reference library does, misbehaves by a seed, and writes down all it was sent."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

# In a thousand deliveries: refused for ever, and at first refused, cut off before or after they are read.
_NEVER, _REFUSED, _CUT_OFF = 4, 15, 15
_TIMES = 2


class Receiver:
    """One line for each request; the path is the endpoint's name. `secrets` by that name."""

    def __init__(self, ledger: Path, secrets: Mapping[str, str], seed: int) -> None:
        self._ledger = ledger.open("w", encoding="ascii")
        self._webhooks = {name: Webhook(secret) for name, secret in secrets.items()}
        self._seed = seed
        self._times: Counter[tuple[str, str]] = Counter()
        self.requests = 0

    async def handle(self, request: web.Request) -> web.Response:
        body, endpoint = await request.read(), request.match_info["endpoint"]
        webhook_id = request.headers.get("webhook-id", "")
        self._times[endpoint, webhook_id] += 1
        status = self._answer(endpoint, webhook_id)
        self.requests += 1
        line = {
            "endpoint": endpoint,
            "id": webhook_id,
            "event": _event_id(body),
            "signed": self._is_signed(endpoint, body, request.headers),
            "body": hashlib.sha256(body).hexdigest(),
            "status": status,
        }
        self._ledger.write(json.dumps(line) + "\n")
        self._ledger.flush()
        if status == 0 and request.transport is not None:
            request.transport.abort()
        return web.Response(status=status or 200)

    def _answer(self, endpoint: str, webhook_id: str) -> int:
        """0 for none."""
        chance = Random(f"{self._seed}/{endpoint}/{webhook_id}").randrange(1000)  # noqa: S311 - seeded, not secret
        if chance < _NEVER:
            return 503
        if self._times[endpoint, webhook_id] <= _TIMES and chance < _NEVER + _REFUSED + _CUT_OFF:
            return 500 if chance < _NEVER + _REFUSED else 0
        return 200

    def _is_signed(self, endpoint: str, body: bytes, headers: Mapping[str, str]) -> bool:
        """By the reference library, and the documented header besides."""
        try:
            self._webhooks[endpoint].verify(body, {name.lower(): value for name, value in headers.items()})
        except WebhookVerificationError:
            return False
        digests = headers.get("webhook-signature", "").removeprefix("v1,")
        return headers.get("x-webhook-signature", "") == f"sha256={base64.b64decode(digests).hex()}"

    def close(self) -> None:
        self._ledger.close()


def _event_id(body: bytes) -> str:
    try:
        return str(json.loads(body)["eventId"])
    except (ValueError, KeyError):
        return ""


@asynccontextmanager
async def receiving(ledger: Path, secrets: Mapping[str, str], seed: int) -> AsyncIterator[tuple[Receiver, str]]:
    """The receiver and its URL, to which the name of an endpoint is added."""
    receiver = Receiver(ledger, secrets, seed)
    app = web.Application()
    app.router.add_post("/{endpoint}", receiver.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield receiver, f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
        receiver.close()
