"""The processes of a run: PostgreSQL, this service, floor, yardstick and Envoy, each on a free port."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import Signals
from types import MappingProxyType

import asyncpg

from bench.load.plan import Protocol
from bench.meter import Meter
from payorder.config import DEVELOPMENT_ISSUER, PREFIX
from payorder.local import envoy, postgres
from payorder.local.issuer import Issuer
from payorder.local.supervisor import Process, Supervisor
from payorder.local.up import AUDIENCE, _accepts_postgres, _is_serving

OWNER = "alice"
SCOPE = "read:orders write:orders"
HOST = "127.0.0.1"
# As many as the service has for claims and settlements, so that nobody waits for a connection sooner than another.
POOL_SIZE = 15
_OWN_TOKENS = 12_000
# More than any run here needs; a limit would be measured instead of the service.
_REQUESTS_PER_SECOND = 50_000
_CONNECTIONS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes payments: where, how it is spoken to, and whose processor time that costs."""

    name: str
    address: str
    database_url: str
    meters: Mapping[str, Meter]
    protocol: Protocol = "grpc"
    has_keys: bool = False
    has_own_tokens: bool = False

    def called(self, name: str, **differences: object) -> "Target":
        return replace(self, name=name, **differences)  # type: ignore[arg-type]  # fields by name


@dataclass(slots=True)
class Stage:
    """Starts what a section asks for; leaving `staged` stops it all. `folder` is for databases and logs."""

    folder: Path
    issuer: Issuer
    supervisor: Supervisor = field(default_factory=Supervisor)
    _postgres: postgres.EmbeddedPostgres | None = None
    _postgres_meter: Meter | None = None
    _count: int = 0

    def tokens(self, target: Target) -> list[str]:
        """One that every call has, or more than the service remembers."""
        count = _OWN_TOKENS if target.has_own_tokens else 1
        return [self.issuer.token(subject=OWNER, scope=SCOPE) for _ in range(count)]

    async def postgres_url(self, database: str) -> str:
        """A new database in the one PostgreSQL, with the project's schema. A meter of it is in `postgres_meter`."""
        server = await self._postgres_server()
        connection = await asyncpg.connect(server.url())
        await connection.execute(f"CREATE DATABASE {database}")
        await connection.close()
        await self._migrate(server.url(database))
        return server.url(database)

    async def sqlite_url(self) -> str:
        url = f"sqlite:///{self.folder / 'payorder.db'}"
        await self._migrate(url)
        return url

    @property
    def postgres_meter(self) -> Meter:
        assert self._postgres_meter is not None
        return self._postgres_meter

    async def payorder(self, name: str, database_url: str, *, workers: int = 1, **settings: str) -> Target:
        """This service, `settings` are further PAYORDER_*."""
        address = free_address()
        environment = self.service_environment(database_url, address, settings)
        options = ["--workers", str(workers)] if workers > 1 else []
        command = [sys.executable, "-m", "payorder", "serve", *options]
        meter = await self._start(name, command, environment, lambda: _is_serving(address))
        return Target(name, address, database_url, self._meters(meter, database_url))

    async def floor(self, name: str, database_url: str, *, obeys_rules: bool = False) -> Target:
        address = free_address()
        options = {
            "listen": address,
            "database_url": database_url,
            "owner": OWNER,
            "latency_seconds": 0,
            "pool_size": POOL_SIZE,
            "obeys_rules": obeys_rules,
        }
        command = [sys.executable, "-m", "bench.floor", json.dumps(options)]
        meter = await self._start(name, command, _environment(), lambda: accepts(address))
        return Target(name, address, database_url, self._meters(meter, database_url))

    async def yardstick(self, name: str, database_url: str) -> Target:
        address = free_address()
        settings = {
            "DATABASE_URL": database_url.replace("postgresql://", "postgresql+asyncpg://"),
            "DATABASE_POOL_SIZE": str(POOL_SIZE),
            "ISSUER": DEVELOPMENT_ISSUER,
            "AUDIENCE": AUDIENCE,
            "JWKS": str(self.issuer.jwks_path),
            "LATENCY_SECONDS": "0",
        }
        environment = _environment() | {f"YARDSTICK_{key}": value for key, value in settings.items()}
        port = address.rpartition(":")[2]
        command = [sys.executable, "-m", "uvicorn", "bench.yardstick.app:app", "--host", HOST, "--port", port]
        meter = await self._start(name, command, environment, lambda: accepts(address))
        return Target(name, address, database_url, self._meters(meter, database_url), protocol="http1")

    async def relay_floor(self, name: str, database_url: str, receiver: str) -> Meter:
        command = [sys.executable, "-m", "bench.relay_floor", database_url, receiver]
        return await self._start(name, command, _environment(), _is_running)

    async def behind_envoy(self, behind: Target) -> Target:
        """Envoy in front of a service that runs."""
        address = free_address()
        config = self.folder / "envoy.yaml"
        config.write_text(envoy.render(self._envoy_settings(address, behind.address)), encoding="utf-8")
        command = envoy.start_command(config, concurrency=1)
        meter = await self._start("envoy", command, _environment(), lambda: _is_serving(address))
        return replace(behind, address=address, meters={**behind.meters, "envoy": meter})

    async def stop(self, *names: str) -> None:
        """End some that are not needed any more."""
        ending = [each for each in self.supervisor._running if each[0].name in names]
        self.supervisor._running = [each for each in self.supervisor._running if each not in ending]
        await Supervisor(ending).stop()

    async def _start(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        ready: Callable[[], Awaitable[bool]],
        user: str | None = None,
        stop_signal: Signals = Signals.SIGTERM,
    ) -> Meter:
        self._count += 1
        log = self.folder / f"{self._count:02}.log"
        await self.supervisor.start(
            Process(
                name=name,
                command=command,
                environment=environment,
                log=log,
                ready=ready,
                user=user,
                stop_signal=stop_signal,
            )
        )
        return Meter(self.supervisor._running[-1][1].pid)

    async def _postgres_server(self) -> postgres.EmbeddedPostgres:
        if self._postgres is None:
            prepared = await asyncio.to_thread(postgres.prepare, self.folder / "postgres")
            self._postgres_meter = await self._start(
                "postgres",
                prepared.command,
                _environment(),
                lambda: _accepts_postgres(prepared.url()),
                prepared.system_user,
                Signals.SIGINT,
            )
            self._postgres = prepared
        return self._postgres

    async def _migrate(self, database_url: str) -> None:
        environment = self.service_environment(database_url, free_address())
        migration = await asyncio.create_subprocess_exec(sys.executable, "-m", "payorder", "migrate", env=environment)
        if await migration.wait() != 0:
            raise RuntimeError("the database could not be migrated")

    def service_environment(
        self, database_url: str, address: str, settings: Mapping[str, str] = MappingProxyType({})
    ) -> dict[str, str]:
        own = {
            "ENV": "development",
            "LISTEN": address,
            "DATABASE_URL": database_url,
            "ISSUER": DEVELOPMENT_ISSUER,
            "AUDIENCE": AUDIENCE,
            "JWKS": str(self.issuer.jwks_path),
            # One owner pays all with one card, many at a time; what counts attempts would let ten in.
            "ATTEMPTS_PER_OWNER_MAX": "0",
            "ATTEMPTS_PER_SOURCE_MAX": "0",
        }
        return _environment() | {PREFIX + name: value for name, value in (own | dict(settings)).items()}

    def _meters(self, server: Meter, database_url: str) -> dict[str, Meter]:
        is_postgres = database_url.startswith("postgresql")
        return {"server": server} | ({"postgres": self.postgres_meter} if is_postgres else {})

    def _envoy_settings(self, address: str, grpc_address: str) -> envoy.EnvoySettings:
        return envoy.EnvoySettings(
            listen_address=HOST,
            listen_port=_port(address),
            grpc_address=HOST,
            grpc_port=_port(grpc_address),
            issuers={DEVELOPMENT_ISSUER: str(self.issuer.jwks_path)},
            audience=AUDIENCE,
            jwks_cache_seconds=envoy.JWKS_CACHE_SECONDS,
            cors_origins=(),
            requests_per_second=_REQUESTS_PER_SECOND,
            address_writes_per_minute=60 * _REQUESTS_PER_SECOND,
            trusted_proxies=0,
            connections_max=_CONNECTIONS_MAX,
            admin_socket=self.folder / "envoy-admin.sock",
            tls=None,
        )


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    stage = Stage(folder, Issuer(folder / "issuer"))
    try:
        yield stage
    finally:
        await stage.supervisor.stop()


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return f"{HOST}:{probe.getsockname()[1]}"


async def _is_running() -> bool:
    return True


async def accepts(address: str) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, _port(address))
    except OSError:
        return False
    writer.close()
    return True


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _environment() -> dict[str, str]:
    """Ours, without settings of whoever runs the benchmark."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
