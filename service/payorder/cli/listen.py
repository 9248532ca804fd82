"""`payorder listen`: a receiver of webhooks in a terminal, for development.

It opens a port on this machine, has events sent there by an endpoint of its own, verifies and prints each, and takes
the endpoint away when it ends.
"""

import asyncio
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import grpc
from aiohttp import ClientError, ClientSession, ClientTimeout, web

from payments.v1.webhook_pb2 import WebhookEndpoint
from payments.v1.webhook_service_pb2 import CreateWebhookEndpointRequest, DeleteWebhookEndpointRequest
from payments.v1.webhook_service_pb2_grpc import WebhookServiceStub
from payorder.cli.process import run, stop_on_signals
from payorder.domain import webhook_signature
from payorder.domain.secret import Secret

_CALL_TIMEOUT_SECONDS = 10.0
# A service that is busy, or not there yet, is asked again.
_RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.5s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SERVICE_CONFIG = {"methodConfig": [{"name": [{}], "retryPolicy": _RETRY_POLICY}]}
_FORWARD_TIMEOUT_SECONDS = 10.0
_BODY_BYTES_MAX = 256 * 1024
_NOT_FORWARDED = {"host", "content-length", "transfer-encoding", "connection"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """No `event_types` are all of them; `forward_to` is the URL of another receiver, which then answers.

    `ca_file` vouches for the service instead of the system's roots. With `prints_json` there are bodies of events on
    standard output, and nothing else.
    """

    address: str
    tls: bool
    ca_file: Path | None
    token: Secret
    token_file: Path | None
    event_types: Sequence[str]
    forward_to: str | None
    prints_json: bool

    def call_options(self) -> dict[str, Any]:
        """A file is read before every call, because the token in it may have been replaced."""
        token = self.token_file.read_text(encoding="utf-8").strip() if self.token_file else self.token.reveal()
        return {"metadata": (("authorization", f"Bearer {token}"),), "timeout": _CALL_TIMEOUT_SECONDS}


def is_this_machine(address: str) -> bool:
    """Whether what is sent to HOST:PORT certainly goes over no network."""
    with suppress(ValueError):
        host = urlsplit(f"//{address}").hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    return False


def listen(wanted: Wanted) -> None:
    try:
        run(_listen(wanted))
    except grpc.aio.AioRpcError as error:
        sys.exit(f"payorder: {wanted.address} says {error.code().name}: {error.details()}")
    except OSError as error:
        sys.exit(f"payorder: {error}")


async def _listen(wanted: Wanted) -> None:
    stop = stop_on_signals()
    async with (
        ClientSession(timeout=ClientTimeout(total=_FORWARD_TIMEOUT_SECONDS)) as session,
        _receiving(_Receiver(session, wanted)) as (receiver, url),
        _endpoint_at(url, wanted) as endpoint,
    ):
        receiver.expect(Secret(endpoint.secret))
        click.echo(f"listening at {url} as endpoint {endpoint.id}, until Ctrl-C", err=wanted.prints_json)
        await stop.wait()


@asynccontextmanager
async def _receiving(receiver: "_Receiver") -> AsyncIterator[tuple["_Receiver", str]]:
    """With its URL, on a port that is free."""
    application = web.Application(client_max_size=_BODY_BYTES_MAX)
    application.router.add_post("/", receiver.receive)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield receiver, f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _endpoint_at(url: str, wanted: Wanted) -> AsyncIterator[WebhookEndpoint]:
    """It is deleted on the way out, with what was not delivered."""
    async with _channel(wanted) as channel:
        service: Any = WebhookServiceStub(channel)
        creating = CreateWebhookEndpointRequest(url=url, description="payorder listen", event_types=wanted.event_types)
        endpoint = await service.CreateWebhookEndpoint(creating, **wanted.call_options())
        try:
            yield endpoint
        finally:
            deleting = DeleteWebhookEndpointRequest(endpoint_id=endpoint.id)
            try:
                await service.DeleteWebhookEndpoint(deleting, **wanted.call_options())
            except grpc.aio.AioRpcError as error:
                click.echo(f"endpoint {endpoint.id} could not be deleted: {error.code().name}", err=True)


def _channel(wanted: Wanted) -> grpc.aio.Channel:
    options: list[tuple[str, Any]] = [("grpc.service_config", json.dumps(_SERVICE_CONFIG))]
    if wanted.tls:
        return grpc.aio.secure_channel(wanted.address, grpc.ssl_channel_credentials(_roots(wanted.ca_file)), options)
    # A proxy that the environment names would read the token, even on its way to this machine.
    return grpc.aio.insecure_channel(wanted.address, [*options, ("grpc.enable_http_proxy", 0)])


def _roots(ca_file: Path | None) -> bytes:
    """By default what OpenSSL trusts, as elsewhere; left to itself, gRPC takes a list of its own."""
    system = ssl.get_default_verify_paths()
    if file := ca_file or system.cafile:
        return Path(file).read_bytes()
    if system.capath:
        return b"".join(path.read_bytes() for path in sorted(Path(system.capath).glob("*.[0-9]")))
    raise OSError("the system has no certificates of authorities: --ca-file can name some")


class _Receiver:
    """Prints what it is sent. Nothing of what is not verified is printed, because anybody may have written it."""

    def __init__(self, session: ClientSession, wanted: Wanted) -> None:
        self._session = session
        self._forward_to = wanted.forward_to
        self._prints_json = wanted.prints_json
        # The first event can be here before the answer that brings the secret.
        self._secret: asyncio.Future[Secret] = asyncio.get_running_loop().create_future()

    def expect(self, secret: Secret) -> None:
        self._secret.set_result(secret)

    async def receive(self, request: web.Request) -> web.Response:
        body, secret = await request.read(), await self._secret
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            webhook_signature.verify(headers, body, [secret], now=time.time())
        except webhook_signature.SignatureRefused:
            click.echo("NOT VERIFIED", err=self._prints_json)
            return web.Response(status=HTTPStatus.BAD_REQUEST)
        status = await self._forward(headers, body) if self._forward_to else HTTPStatus.NO_CONTENT
        click.echo(body if self._prints_json else self._line(json.loads(body), status))
        return web.Response(status=status)

    def _line(self, event: dict[str, Any], status: int) -> str:
        order_id = event["data"].get("order", {}).get("id", "-")
        line = f"{event['timestamp']}  {event['eventType']}  {order_id}  verified"
        return line + (f"  -> {status}" if self._forward_to else "")

    async def _forward(self, headers: dict[str, str], body: bytes) -> int:
        """The answer's status: what the sender is told. None in time is one that makes it send again."""
        kept = {name: value for name, value in headers.items() if name not in _NOT_FORWARDED}
        try:
            sending = self._session.post(str(self._forward_to), data=body, headers=kept, allow_redirects=False)
            async with sending as answer:
                return answer.status
        except (ClientError, TimeoutError):
            return HTTPStatus.BAD_GATEWAY
