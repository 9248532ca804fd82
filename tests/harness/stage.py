"""What a run needs: the database, the processor, the launcher of services, tokens, and the transcript."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from harness import checker, evidence
from harness.checker import Finding
from harness.client import Client, Door, Metadata
from harness.launcher import PROCESSOR_NAME, Arming, Launcher, Service, launcher
from harness.processor.behaviour import ANSWERS, CHARGES
from harness.transcript import Transcript
from payorder.adapters.database.engine import Database
from payorder.adapters.database.migrate import upgrade
from payorder.config import DEVELOPMENT_ISSUER, Settings
from payorder.local.issuer import Issuer

SETTINGS: Mapping[str, str] = {
    "ENV": "development",
    "REFLECTION": "false",
    "LISTEN": "127.0.0.1:0",
    "ISSUER": DEVELOPMENT_ISSUER,
    "PROCESSOR": PROCESSOR_NAME,
    "CHARGE_TIMEOUT_SECONDS": "0.8",
    "ANSWER_WITHIN_SECONDS": "1.5",
    "RECONCILE_AFTER_SECONDS": "1.5",
    "RECONCILE_EVERY_SECONDS": "0.2",
    "COMPARE_EVERY_SECONDS": "2",
    # Customers here are few, pay with few cards and are declined at random.
    "DECLINES_PER_ORDER_MAX": "0",
    "ATTEMPTS_PER_OWNER_MAX": "0",
    "ATTEMPTS_PER_SOURCE_MAX": "0",
    "FINGERPRINT_KEY": "a key of the harness, of more than thirty-two characters",
    "DRAIN_SECONDS": "3",
}
QUIET_SECONDS_MAX = 60.0

# Alembic keeps the migration that runs in a global.
_migrating = asyncio.Lock()


@dataclass(frozen=True, slots=True)
class Plan:
    """`settings` are PAYORDER_* without the prefix, on top of SETTINGS; the others are the processor's weights."""

    seed: int
    database_url: str
    folder: Path
    variant: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    charges: Mapping[str, int] = field(default_factory=lambda: CHARGES)
    answers: Mapping[str, int] = field(default_factory=lambda: ANSWERS)
    quiet_seconds_max: float = QUIET_SECONDS_MAX
    # The way of the services to the database, where it is another than ours.
    service_database_url: str | None = None


@dataclass(slots=True)
class Stage:
    plan: Plan
    launcher: Launcher
    issuer: Issuer
    transcript: Transcript
    processor_url: str
    _logs: Any = field(default_factory=lambda: count(1))
    _amounts: Any = field(default_factory=lambda: count(1001))

    @property
    def ledger(self) -> Path:
        return self.plan.folder / "ledger.jsonl"

    def random(self, whose: str) -> Random:
        """A source of its own for each part of a run, so that the seed decides its choices whatever the others do."""
        return Random(f"{self.plan.seed}/{whose}")  # noqa: S311 - seeded, not secret

    def environment(self, **settings: str) -> dict[str, str]:
        own = {
            "DATABASE_URL": self.plan.service_database_url or self.plan.database_url,
            "JWKS": str(self.issuer.jwks_path),
            "PROCESSOR_OPTIONS": json.dumps({"url": self.processor_url}),
        }
        chosen = {**SETTINGS, **own, **self.plan.settings, **settings}
        known = {name.upper() for name in Settings.model_fields}
        return {f"PAYORDER_{name}": value for name, value in chosen.items() if name in known}

    async def start_service(self, arming: Arming | None = None, **settings: str) -> Service:
        log = self.plan.folder / "log" / "service.log"
        environment = self.environment(**settings)
        return await self.launcher.start(environment, log, arming=arming, variant=self.plan.variant)

    def kill(self, service: Service) -> None:
        service.signal(signal.SIGKILL)
        self.transcript.note("kill", pid=service.pid, point="random")

    def client(self, caller: str = "alice", metadata: Metadata = ()) -> Client:
        token = self.issuer.token(subject=caller, scope="read:orders write:orders")
        return Client(caller, token, self.transcript, metadata)

    def new_amount(self) -> int:
        """Another one for each order, so that a charge says whose it is."""
        return int(next(self._amounts))

    async def place(self, client: Client, door: Door) -> tuple[str, int]:
        """A new order and its amount, from a service that is up."""
        while True:
            amount = self.new_amount()
            call = await client.create(door, amount, key=None)
            if call.code == "OK":
                return call.order, amount
            assert call.reason == "BUSY" or call.code == "DEADLINE_EXCEEDED", call
            await asyncio.sleep(0.1)

    async def is_quiet(self) -> bool:
        """Nothing open in the database, and no late charge to come."""
        query = "SELECT id FROM payments WHERE status IN ('processing', 'unknown')"
        held = "SELECT id FROM orders WHERE active_payment_id IS NOT NULL"
        refunds = "SELECT id FROM refunds WHERE status IN ('processing', 'pending', 'unknown')"
        for each in (query, held, refunds):
            if await evidence.read_table(self.plan.database_url, each):
                return False
        async with aiohttp.ClientSession() as session, session.get(f"{self.processor_url}/pending") as response:
            return bool(await response.json() == 0)

    async def wait_until_quiet(self) -> float:
        """Seconds it took, bounded; the checker says what is still open then."""
        began = time.monotonic()
        while time.monotonic() < began + self.plan.quiet_seconds_max:
            if await self.is_quiet():
                break
            await asyncio.sleep(0.2)
        return time.monotonic() - began

    async def findings(self) -> list[Finding]:
        gathered = await evidence.collect(
            self.ledger,
            [self.plan.folder / "transcript.jsonl"],
            self.plan.database_url,
            [self.plan.folder / "log" / "service.log"],
        )
        return [*checker.check(gathered), *checker.leaks([self.plan.folder], gathered)]


@asynccontextmanager
async def stage(plan: Plan, shared: Launcher | None = None) -> AsyncIterator[Stage]:
    """Everything but services; all of it ends with the block, but not a launcher that is shared."""
    (plan.folder / "log").mkdir(parents=True, exist_ok=True)
    await _migrate(plan)
    async with (
        nullcontext(shared) if shared else launcher(plan.folder) as launched,
        _processor(plan, launched) as processor,
    ):
        with closing(Transcript(plan.folder / "transcript.jsonl")) as transcript:
            yield Stage(plan, launched, Issuer(plan.folder / "issuer"), transcript, f"http://{processor.address}")


@asynccontextmanager
async def _processor(plan: Plan, launched: Launcher) -> AsyncIterator[Service]:
    mixes = {"charge": plan.charges, "answer": plan.answers}
    log = plan.folder / "log" / "processor.log"
    processor = await launched.start_processor(plan.folder / "ledger.jsonl", plan.seed, mixes, log)
    try:
        yield processor
    finally:
        processor.signal(signal.SIGKILL)
        await processor.exited.wait()


async def _migrate(plan: Plan) -> None:
    async with _migrating:
        await _migrate_alone(plan)


async def _migrate_alone(plan: Plan) -> None:
    database = Database(plan.database_url, pool_size=1, pool_timeout_seconds=5)
    try:
        await upgrade(database)
        if plan.variant:
            from harness.variants import VARIANTS  # noqa: PLC0415 - imports half of the service

            for statement in VARIANTS[plan.variant].needs:
                await database.write(lambda connection, statement=statement: connection.exec_driver_sql(statement))
    finally:
        await database.close()
