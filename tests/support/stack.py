"""A whole service as its users have it: the `payorder` command and Envoy as processes, printing into files."""

import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any

import aiohttp
import grpc

from payorder.config import PREFIX, Settings
from payorder.local import envoy, postgres
from payorder.local.issuer import Issuer
from payorder.local.supervisor import Process, Supervisor
from payorder.local.up import AUDIENCE, Up, _accepts_postgres, _envoy, _is_serving, _migrate, service_environment
from support.doors import GrpcDoor, RestDoor
from support.leaks import LEDGER

# Most tests pay with few cards, as few people, and are declined on purpose.
WITHOUT_LIMITS: dict[str, Any] = {
    "declines_per_order_max": "0",
    "attempts_per_owner_max": "0",
    "attempts_per_source_max": "0",
    "webhook_endpoints_max": "1000",
}


_GIVEN_PORTS: set[int] = set()


@dataclass(frozen=True, slots=True)
class Stack:
    """Doors to a running service, its issuer, and the folder with its database and logs."""

    data: Path
    database_url: str
    issuer: Issuer
    rest: RestDoor
    grpc: GrpcDoor
    grpc_through_envoy: GrpcDoor
    grpc_address: str
    service_process_id: int

    def token(self, subject: str = "alice", scope: str = "read:orders write:orders") -> str:
        return self.issuer.token(subject=subject, scope=scope)


def free_port() -> int:
    """Below those that the kernel gives to outgoing connections: one of them might take it before its server does.

    None comes twice: one server may not yet listen when the port of another is looked for.
    """
    while True:
        port = SystemRandom().randrange(10_000, 32_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in _GIVEN_PORTS:
                _GIVEN_PORTS.add(port)
                return port


@asynccontextmanager
async def running_stack(
    data: Path, database_url: str, *, python_path: Path | None = None, **settings: str
) -> AsyncIterator[Stack]:
    """Service and Envoy on free ports over `database_url`; `settings` are further PAYORDER_* of the service.

    `python_path` is a folder with further packages.
    """
    wanted = Up(free_port(), free_port(), data, database_url, with_postgres=False)
    wanted.logs.mkdir(parents=True, exist_ok=True)
    LEDGER.folders.append(data)
    issuer = Issuer(data / "issuer")
    environment = without_test_settings(service_environment(wanted, database_url, issuer))
    environment |= {f"PAYORDER_{name.upper()}": value for name, value in (WITHOUT_LIMITS | settings).items()}
    environment |= with_packages(python_path)
    supervisor = Supervisor()
    try:
        await _migrate(wanted, environment)
        await supervisor.start(service(wanted, environment))
        process_id = supervisor._running[-1][1].pid
        await supervisor.start(_envoy(wanted, issuer))
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
            grpc.aio.insecure_channel(wanted.grpc_address) as direct,
            grpc.aio.insecure_channel(wanted.address) as through_envoy,
        ):
            yield Stack(
                data=data,
                database_url=database_url,
                issuer=issuer,
                rest=RestDoor(session, wanted.address),
                grpc=GrpcDoor(direct),
                grpc_through_envoy=GrpcDoor(through_envoy),
                grpc_address=wanted.grpc_address,
                service_process_id=process_id,
            )
    finally:
        await supervisor.stop()


@asynccontextmanager
async def running_envoy(
    grpc_address: str,
    folder: Path,
    *,
    issuers: Mapping[str, str],
    requests_per_second: int = 5000,
    address_writes_per_minute: int = 300_000,
    trusted_proxies: int = 0,
    jwks_cache_seconds: int = envoy.JWKS_CACHE_SECONDS,
) -> AsyncIterator[tuple[RestDoor, GrpcDoor]]:
    """An Envoy with settings of its own in front of a service that runs; `issuers` are those of EnvoySettings."""
    settings = envoy_settings(
        grpc_address,
        folder,
        issuers,
        requests_per_second=requests_per_second,
        address_writes_per_minute=address_writes_per_minute,
        trusted_proxies=trusted_proxies,
        jwks_cache_seconds=jwks_cache_seconds,
    )
    address = f"{settings.listen_address}:{settings.listen_port}"
    async with (
        started_envoy(settings, folder, lambda: _is_serving(address)),
        aiohttp.ClientSession() as session,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield RestDoor(session, address), GrpcDoor(channel)


def envoy_settings(
    grpc_address: str,
    folder: Path,
    issuers: Mapping[str, str],
    *,
    requests_per_second: int = 5000,
    address_writes_per_minute: int = 300_000,
    trusted_proxies: int = 0,
    jwks_cache_seconds: int = envoy.JWKS_CACHE_SECONDS,
    tls: envoy.Tls | None = None,
) -> envoy.EnvoySettings:
    host, port = grpc_address.split(":")
    return envoy.EnvoySettings(
        listen_address=host,
        listen_port=free_port(),
        grpc_address=host,
        grpc_port=int(port),
        issuers=issuers,
        audience=AUDIENCE,
        jwks_cache_seconds=jwks_cache_seconds,
        cors_origins=(),
        requests_per_second=requests_per_second,
        address_writes_per_minute=address_writes_per_minute,
        trusted_proxies=trusted_proxies,
        connections_max=1000,
        admin_socket=folder / "admin.sock",
        tls=tls,
    )


@asynccontextmanager
async def started_envoy(
    settings: envoy.EnvoySettings, folder: Path, ready: Callable[[], Awaitable[bool]]
) -> AsyncIterator[None]:
    LEDGER.folders.append(folder)
    config = folder / "envoy.yaml"
    config.write_text(envoy.render(settings), encoding="utf-8")
    supervisor = Supervisor()
    try:
        await supervisor.start(
            Process(
                name="envoy",
                command=envoy.start_command(config, concurrency=1),
                log=folder / "envoy.log",
                ready=ready,
            )
        )
        yield
    finally:
        await supervisor.stop()


def service(wanted: Up, environment: dict[str, str]) -> Process:
    return Process(
        name="payorder",
        command=[sys.executable, "-m", "payorder", "serve"],
        environment=environment,
        log=wanted.logs / "service.log",
        ready=lambda: _is_serving(wanted.grpc_address),
    )


@asynccontextmanager
async def running_postgres(data: Path, **settings: str) -> AsyncIterator[postgres.EmbeddedPostgres]:
    """A real PostgreSQL in `data`, ended with the test run; `settings` are the server's own."""
    prepared = postgres.prepare(data)
    LEDGER.folders.append(data.parent)
    supervisor = Supervisor()
    try:
        await supervisor.start(
            Process(
                name="postgres",
                command=[*prepared.command, *(f"--{name}={value}" for name, value in settings.items())],
                user=prepared.system_user,
                log=data.parent / "postgres.log",
                ready=lambda: _accepts_postgres(prepared.url()),
            )
        )
        yield prepared
    finally:
        await supervisor.stop()


def without_test_settings(environment: dict[str, str]) -> dict[str, str]:
    """Without PAYORDER_SEED and the like, which the service would refuse as settings that it does not have."""
    own = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    return {name: value for name, value in environment.items() if name in own or not name.startswith(PREFIX)}


def with_packages(python_path: Path | None) -> dict[str, str]:
    """What a process that shall find them has in its environment."""
    if python_path is None:
        return {}
    return {"PYTHONPATH": os.pathsep.join([str(python_path), *filter(None, [os.environ.get("PYTHONPATH")])])}


def environment_without_payorder() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PAYORDER_")}
