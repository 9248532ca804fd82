"""`./dev up`: database, issuer, service and Envoy on this machine, ready when everything answers."""

import asyncio
import fcntl
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from payorder.config import PREFIX
from payorder.local import envoy
from payorder.local.issuer import Issuer, url_at
from payorder.local.private_keys import make_if_missing
from payorder.local.supervisor import Process, Supervisor
from payorder.local.welcome import ISSUER_PORT, welcome

HOST = "127.0.0.1"
AUDIENCE = "payorder"
REQUESTS_PER_SECOND = 5000
CONNECTIONS_MAX = 10_000


class CannotStart(Exception):
    """Why `./dev up` gives up, in words for the terminal."""


@dataclass(frozen=True, slots=True)
class Up:
    """What was asked for: `database_url` None means SQLite in `data`, or PostgreSQL in it with `with_postgres`."""

    port: int
    grpc_port: int
    data: Path
    database_url: str | None
    with_postgres: bool
    issuer_port: int = ISSUER_PORT

    @property
    def logs(self) -> Path:
        return self.data / "log"

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def grpc_address(self) -> str:
        return f"{HOST}:{self.grpc_port}"

    @property
    def issuer_url(self) -> str:
        return url_at(self.issuer_port)

    @property
    def ports(self) -> tuple[tuple[int, str], ...]:
        return (self.port, "--port"), (self.grpc_port, "--grpc-port"), (self.issuer_port, "--issuer-port")


async def up(wanted: Up) -> None:
    """Runs until Ctrl-C, SIGTERM or the end of a process. Raises CannotStart, ProcessFault."""
    wanted.logs.mkdir(parents=True, exist_ok=True)
    stop = _stop_on_signals()
    with closing(_locked(wanted.data)):
        for port, option in wanted.ports:
            _refuse_taken(port, option)
        supervisor = Supervisor()
        try:
            starting = asyncio.create_task(_start(wanted, supervisor))
            if await _first(starting, stop):
                print(welcome(wanted.address, wanted.grpc_address, wanted.issuer_url, wanted.data), flush=True)
                await _first(asyncio.create_task(supervisor.wait()), stop)
        finally:
            await supervisor.stop()


async def _start(wanted: Up, supervisor: Supervisor) -> None:
    database_url = wanted.database_url or f"sqlite:///{wanted.data / 'payorder.db'}"
    if wanted.with_postgres:
        database_url = await _start_postgres(wanted, supervisor)
    issuer = Issuer(wanted.data / "issuer", wanted.issuer_url)
    environment = {
        f"{PREFIX}{name}": _signing_key(wanted.data / file)
        for name, file in (("AUDIT_SIGNING_KEY", "audit.pem"), ("RECEIPT_SIGNING_KEY", "receipts.pem"))
    }
    environment |= service_environment(wanted, database_url, issuer)
    # They start side by side. The service waits for the schema, and Envoy is the first to ask the issuer for keys.
    issuer_is_ready = await supervisor.launch(_issuer(wanted))
    _prepare_sqlite(environment[f"{PREFIX}DATABASE_URL"])
    service_is_ready = await supervisor.launch(_service(wanted, environment))
    await _migrate(wanted, environment)
    await issuer_is_ready()
    envoy_is_ready = await supervisor.launch(_envoy(wanted, issuer))
    await service_is_ready()
    await envoy_is_ready()


def _service(wanted: Up, environment: Mapping[str, str]) -> Process:
    return Process(
        name="payorder",
        command=[sys.executable, "-m", "payorder", "serve"],
        environment=environment,
        log=wanted.logs / "service.log",
        ready=lambda: _is_serving(wanted.grpc_address),
    )


def _prepare_sqlite(database_url: str) -> None:
    """Whoever opens a new file switches it to WAL, for which it has to be alone: here nobody else is there yet.

    What is wrong with the file, the migration will tell.
    """
    path = database_url.removeprefix("sqlite:///")
    if path != database_url:
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")


def _signing_key(path: Path) -> str:
    make_if_missing(path, Ed25519PrivateKey.generate)
    return str(path)


def service_environment(wanted: Up, database_url: str, issuer: Issuer) -> dict[str, str]:
    """The settings of `./dev up`; a PAYORDER_* of the caller's own comes on top."""
    settings = {
        "ENV": "development",
        "LISTEN": wanted.grpc_address,
        "DATABASE_URL": database_url,
        "ISSUER": issuer.name,
        "AUDIENCE": AUDIENCE,
        "PUBLIC_URL": f"http://{wanted.address}",
        "SELLER": "Rex & Friends (demo) | 123 Fake Street | London N12 9XX | shop@example.com",
        # Whoever develops a receiver runs it on this machine.
        "WEBHOOK_NETWORKS_ALLOWED": "127.0.0.0/8 ::1/128",
        "WEBHOOK_NETWORKS_ALLOWED_TO": "everybody",
        "WEBHOOK_PORTS": "any",
    }
    if issuer.url is None:
        # Without an address of its own it cannot be asked where its keys are.
        settings["JWKS"] = issuer.key_set
    return {PREFIX + name: value for name, value in settings.items()} | os.environ


async def _start_postgres(wanted: Up, supervisor: Supervisor) -> str:
    from payorder.local import postgres  # noqa: PLC0415 - only where it is asked for

    prepared = await asyncio.to_thread(postgres.prepare, wanted.data.resolve() / "postgres")
    await supervisor.start(
        Process(
            name="postgres",
            command=prepared.command,
            user=prepared.system_user,
            log=wanted.logs / "postgres.log",
            ready=lambda: _accepts_postgres(prepared.url()),
            stop_signal=signal.SIGINT,
        )
    )
    return prepared.url()


def _issuer(wanted: Up) -> Process:
    options = ["--port", str(wanted.issuer_port), "--data", str(wanted.data)]
    return Process(
        name="issuer",
        command=[str(Path(sys.executable).with_name("payorder-local")), "issuer", *options],
        log=wanted.logs / "issuer.log",
        ready=lambda: _accepts(HOST, wanted.issuer_port),
    )


def _envoy(wanted: Up, issuer: Issuer) -> Process:
    settings = envoy.EnvoySettings(
        listen_address=HOST,
        listen_port=wanted.port,
        grpc_address=HOST,
        grpc_port=wanted.grpc_port,
        issuers={issuer.name: issuer.key_set},
        audience=AUDIENCE,
        jwks_cache_seconds=envoy.JWKS_CACHE_SECONDS,
        cors_origins=(),
        requests_per_second=REQUESTS_PER_SECOND,
        # Everybody who calls has this machine's address.
        address_writes_per_minute=60 * REQUESTS_PER_SECOND,
        trusted_proxies=0,
        connections_max=CONNECTIONS_MAX,
        admin_socket=wanted.data / "envoy-admin.sock",
        tls=None,
    )
    config = wanted.data / "envoy.yaml"
    config.write_text(envoy.render(settings), encoding="utf-8")
    settings.admin_socket.unlink(missing_ok=True)
    return Process(
        name="envoy",
        command=envoy.start_command(config, concurrency=1),
        log=wanted.logs / "envoy.log",
        ready=lambda: _is_serving(wanted.address),
    )


async def _migrate(wanted: Up, environment: Mapping[str, str]) -> None:
    with (wanted.logs / "migrate.log").open("ab") as log:
        migration = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "payorder", "migrate", env=environment, stdout=log, stderr=log
        )
        if await migration.wait() != 0:
            raise CannotStart(f"the database could not be migrated; see {log.name}")


async def _is_serving(address: str) -> bool:
    """Whether gRPC health says so: asked at the service, and then through Envoy."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            check = HealthStub(channel).Check  # type: ignore[attr-defined]  # its stub file leaves it out
            answer = await check(HealthCheckRequest(), timeout=1)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == HealthCheckResponse.SERVING)


async def _accepts(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout=1)
    except OSError:
        return False
    writer.close()
    return True


async def _accepts_postgres(url: str) -> bool:
    import asyncpg  # noqa: PLC0415 - only with PostgreSQL

    try:
        connection = await asyncpg.connect(url, timeout=1)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    await connection.close()
    return True


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signal_number, stop.set)
    return stop


async def _first(work: "asyncio.Task[None]", stop: asyncio.Event) -> bool:
    """Whether `work` ended before `stop` was set; then it is cancelled. Raises what `work` raises."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if work.done():
        work.result()
        return not stop.is_set()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return False


def _locked(data: Path) -> IO[str]:
    lock = (data / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStart(f"{data} is in use by another ./dev up: choose another with --data") from None
    return lock


def _refuse_taken(port: int, option: str) -> None:
    with socket.socket() as probe:
        # Without SO_REUSEPORT: two Envoys would otherwise share the port in silence.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise CannotStart(f"port {port} is taken: choose another with {option}") from None
