"""Whoever gets webhooks in a benchmark: an Envoy that answers 200 to anybody and counts, and those who do harm."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp

from bench.meter import Meter
from bench.stage import Stage, accepts, free_address
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
# The name of the process, to be stopped by.
HOSTILE = "hostile receivers"
# Each of another kind, all of them hanging, answering just in time, or at once for a while and then not at all.
Kind = Literal["different", "hanging", "late", "alternating"]
# Where the receivers of the tests are.
_TESTS = Path(__file__).parents[1] / "tests"


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


async def hostile(stage: Stage, kind: Kind) -> dict[str, str]:
    """The URL of each, by what it does."""
    file = stage.folder / f"hostile-{kind}.json"
    command = [sys.executable, "-m", "bench.hostile", kind, str(file)]
    environment = os.environ | {"PYTHONPATH": str(_TESTS)}
    await stage._start(HOSTILE, command, environment, lambda: asyncio.to_thread(file.exists))
    urls: dict[str, str] = json.loads(_read(file))
    return urls


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
