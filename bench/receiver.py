"""Whoever gets webhooks in a benchmark: an Envoy that answers 200 to anybody and counts, and one who never answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.meter import Meter
from bench.stage import HOST, Stage, accepts, free_address
from payorder.local import envoy

_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_CONFIG = """
admin:
  address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}
static_resources:
  listeners:
    - name: receiver
      address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": {manager}
                stat_prefix: receiver
                # Whoever answers before the body is read has to close the connection.
                http_filters:
                  - name: envoy.filters.http.buffer
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
                      max_request_bytes: 65536
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                route_config:
                  virtual_hosts:
                    - name: anybody
                      domains: ["*"]
                      routes:
                        - match: {{prefix: "/", headers: [{{name: webhook-signature, present_match: true}}]}}
                          direct_response: {{status: 200}}
                        - match: {{prefix: "/"}}
                          direct_response: {{status: 400}}
"""


@dataclass(frozen=True, slots=True)
class EnvoyReceiver:
    """Answers 200 to what is signed, and 400 to anything else."""

    url: str
    meter: Meter
    _admin: str

    async def count(self) -> int:
        """How many requests it has answered with 2xx."""
        name = "http.receiver.downstream_rq_2xx"
        url = f"http://{self._admin}/stats?format=json&filter={name}$"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            stats = json.loads(await answer.text())["stats"]
        return int(next(stat["value"] for stat in stats if stat.get("name") == name))


async def receiver(stage: Stage) -> EnvoyReceiver:
    address, admin = free_address(), free_address()
    config = stage.folder / f"receiver-{address.rpartition(':')[2]}.yaml"
    ports = {"manager": _MANAGER, "port": address.rpartition(":")[2], "admin": admin.rpartition(":")[2]}
    _write(config, _CONFIG.format(**ports))
    command = envoy.start_command(config, concurrency=1)
    meter = await stage._start("receiver", command, {}, lambda: accepts(address))
    return EnvoyReceiver(f"http://{address}/", meter, admin)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


@asynccontextmanager
async def hanging() -> AsyncIterator[str]:
    """The URL of one who listens, and never says a word."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, HOST, 0)
    try:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
