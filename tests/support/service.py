"""The service without Envoy: in this process where a test wants its channel, as a process where it wants its log."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from payorder.adapters.database.engine import Database
from payorder.adapters.database.migrate import upgrade
from payorder.app import running
from payorder.config import DEVELOPMENT_ISSUER, Environment, Settings
from payorder.local.issuer import Issuer
from payorder.local.supervisor import Supervisor
from payorder.local.up import Up, _migrate, service_environment
from support.doors import GrpcDoor
from support.leaks import LEDGER
from support.requests import ORDER
from support.stack import WITHOUT_LIMITS, free_port, service, with_packages, without_test_settings

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Service:
    """A running service, the door to it and the issuer it trusts."""

    address: str
    grpc: GrpcDoor
    issuer: Issuer
    data: Path
    # Ends a service that runs in a process of its own, as SIGTERM does.
    stop: Callable[[], Awaitable[None]] | None = None

    def token(self, subject: str = "alice", scope: str = "read:orders write:orders") -> str:
        return self.issuer.token(subject=subject, scope=scope)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token()}"),)

    async def new_order(self, total: str = "49.99") -> str:
        created = await self.grpc.call("CreateOrder", ORDER | {"totalAmount": total}, token=self.token())
        assert "OK" == created.code
        return str(created.body["id"])

    async def read(self, rpc: str, **request: Any) -> dict[str, Any]:
        answer = await self.grpc.call(rpc, request, token=self.token())
        assert "OK" == answer.code
        return answer.body

    async def code_of(
        self, method: str, body: bytes = b"", *, metadata: tuple[tuple[str, str | bytes], ...] = ()
    ) -> str:
        """The gRPC status of a raw call; `method` is a path."""
        try:
            await self.grpc.channel.unary_unary(method)(body, metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    def log_lines(self) -> list[dict[str, Any]]:
        """What a service in a process of its own has logged."""
        return [json.loads(line) for line in (self.data / "log" / "service.log").read_text().splitlines()]


def settings_of(data: Path, database_url: str, **settings: Any) -> Settings:
    inside = {"webhook_networks_allowed": "127.0.0.0/8", "webhook_networks_allowed_to": "everybody"}
    trusted = {"issuer": DEVELOPMENT_ISSUER, "jwks": str(Issuer(data / "issuer").jwks_path)}
    own = {"env": Environment.DEVELOPMENT, "listen": "127.0.0.1:0", "database_url": database_url}
    return Settings(**(own | inside | {"webhook_ports": "any"} | trusted | WITHOUT_LIMITS | settings))


@asynccontextmanager
async def serving(data: Path, database_url: str, *, migrates: bool = True, **settings: Any) -> AsyncIterator[Service]:
    """The service in this process and on this loop; leaving the block stops it as SIGTERM does."""
    LEDGER.folders.append(data)
    if migrates:
        await migrate(database_url)
    async with running(settings_of(data, database_url, **settings)) as app:
        address = f"127.0.0.1:{app.port}"
        async with grpc.aio.insecure_channel(address) as channel:
            yield Service(address, GrpcDoor(channel), Issuer(data / "issuer"), data)


@asynccontextmanager
async def serving_process(
    data: Path, database_url: str, *, python_path: Path | None = None, **settings: str
) -> AsyncIterator[Service]:
    """The service as a process; `python_path` is a folder with further packages."""
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
        async with grpc.aio.insecure_channel(wanted.grpc_address) as channel:
            yield Service(wanted.grpc_address, GrpcDoor(channel), issuer, data, supervisor.stop)
    finally:
        await supervisor.stop()


async def migrate(database_url: str) -> None:
    database = Database(database_url, pool_size=1, pool_timeout_seconds=5)
    await upgrade(database)
    await database.close()


async def until(read: Callable[[], Awaitable[Value]], holds: Callable[[Value], bool], *, tries: int = 1500) -> Value:
    """The first value read for which it holds, or else the last one, for an assertion to show."""
    for _ in range(tries):
        value = await read()
        if holds(value):
            break
        await asyncio.sleep(0.02)
    return value


def install_processor(folder: Path, name: str, source: str) -> Path:
    """An outside package with one processor, as pip would leave it in `folder`: a module and its dist-info."""
    module = f"{name}_processor"
    information = folder / f"{module}-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[payorder.processors]\n{name} = {module}:from_options\n")
    return folder
