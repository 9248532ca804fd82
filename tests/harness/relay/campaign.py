"""`python -m harness.relay.campaign`: events go out through two services that are killed at random.

Prints the seed, its progress and a table; the exit code is 1 on any finding. Events are written by transactions that
overlap, so that what has the lower number is often committed later. Time does not wait for days: what is to be retried
in minutes and later is due at once.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

from sqlalchemy import insert, text

from harness.campaign import databases
from harness.checker import Finding
from harness.evidence import read_table
from harness.launcher import Launcher, launcher
from harness.relay import checker
from harness.relay.receiver import receiving
from payorder.adapters.database.engine import Database
from payorder.adapters.database.migrate import upgrade
from payorder.adapters.database.tables import events, orders, payments, receipts, webhook_endpoints
from payorder.adapters.sealing import FernetBox
from payorder.adapters.system import new_id
from payorder.config import DEVELOPMENT_ISSUER, Settings
from payorder.domain.errors import Busy
from payorder.domain.secret import Secret
from payorder.local.issuer import Issuer

DISPATCHERS = 2
_WRITERS = 4
_EVENTS_OF_ORDER = 2
_OWNERS = ("alice",) * 19 + ("bob",)
# The first hears of everything, the second of what one owner's orders do.
_SECRETS = {"all": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "bob": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}
_MASKED = '{"object":"card","name":"J. Doe","number":"************4242","exp_month":12,"exp_year":2035}'
_MONEY = {"currency": "GBP", "currency_digits": 2}
_ORDER = _MONEY | {
    "status": "approved",
    "total_minor": 4999,
    "metadata": "{}",
    "event_seq": 2,
    "audit_seq": 0,
    "audit_hash": bytes(32),
    "audit_previous": bytes(32),
}
_PAYMENT = _MONEY | {
    "status": "succeeded",
    "amount_minor": 4999,
    "captured_minor": 4999,
    "processor": "sandbox",
    "reply_code": 0,
    "reply": b"reply",
    "source_kind": "card",
    "source_last4": "4242",
    "source_masked": _MASKED,
}

_OPEN = "SELECT id FROM events WHERE fanned_out_at IS NULL AND faults < 5 LIMIT 1"
_PENDING = "SELECT id FROM webhook_deliveries WHERE state = 'pending' LIMIT 1"
# What is leased is due within a minute, what is retried later than that is not.
_MAKE_DUE = "UPDATE webhook_deliveries SET next_attempt_at = 0 WHERE state = 'pending' AND next_attempt_at > :latest"
_LEASE_MILLISECONDS = 61_000


@dataclass(frozen=True, slots=True)
class Plan:
    """`kill_seconds`: how long a service lives at most. Writers write `orders_at_once` at most, and rest in between.

    With `waits_for_leases`, those of the killed end by themselves; without, time passes much quicker for all.
    """

    seed: int
    database_url: str
    folder: Path
    events: int
    kills: int
    kill_seconds: float = 3.0
    waits_for_leases: bool = False
    orders_at_once: int = 50
    rest_seconds: float = 0.0
    variant: str | None = None
    patience_seconds: float = 120.0

    def random(self, whose: str) -> Random:
        return Random(f"{self.seed}/{whose}")  # noqa: S311 - seeded, not secret


@dataclass(slots=True)
class Result:
    seed: int
    events: int = 0
    kills: int = 0
    requests: int = 0
    states: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    @property
    def table(self) -> Mapping[str, object]:
        kinds = Counter(finding.kind for finding in self.findings)
        counted = {kind: kinds[kind] for kind in ("skipped", "lost", "stuck", "forgotten", "unsigned", "differing")}
        return {
            "events": self.events,
            "kills": self.kills,
            "deliveries": self.states.total(),
            "delivered": self.states["delivered"],
            "dead": self.states["dead"],
            "requests": self.requests,
            **counted,
            "other": len(self.findings) - sum(counted.values()),
        }


async def campaign(plan: Plan, shared: Launcher, say: Callable[[str], None] = lambda _: None) -> Result:
    """On a database that is migrated and has no endpoints."""
    result, ledger = Result(plan.seed), plan.folder / "received.jsonl"
    async with receiving(ledger, _SECRETS, plan.seed) as (receiver, url), _opened(plan.database_url) as database:
        endpoints = await _add_endpoints(database, url)
        began, enough = time.monotonic(), asyncio.Event()
        async with asyncio.TaskGroup() as together:
            together.create_task(
                _say_how_far(lambda: f"{result.kills} kills, {receiver.requests} requests", say, enough)
            )
            together.create_task(_let_time_pass(plan, database, enough))
            runs = [together.create_task(_run(plan, shared, number, result, enough)) for number in range(DISPATCHERS)]
            result.events = await _write_events(plan, database)
            await _until_sent(plan)
            enough.set()
            await asyncio.gather(*runs)
        result.seconds, result.requests = time.monotonic() - began, receiver.requests
    rows = await read_table(plan.database_url, "SELECT state FROM webhook_deliveries")
    result.states.update(row["state"] for row in rows)
    result.findings = await checker.check(plan.database_url, ledger, endpoints)
    return result


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, pool_size=_WRITERS + 1, pool_timeout_seconds=10)
    try:
        yield database
    finally:
        await database.close()


async def _migrate(url: str) -> None:
    async with _opened(url) as database:
        await upgrade(database)


async def _add_endpoints(database: Database, url: str) -> dict[str, str]:
    """Their ids by name."""
    box = FernetBox(Settings(issuer="urn:none", jwks="none", env="development").sealing_keys)
    rows = [
        {
            "id": new_id(),
            "created_by": "harness",
            "owner_sub": None if name == "all" else name,
            "url": url + name,
            "event_types": "[]" if name == "all" else '["payment.succeeded"]',
            "state": "enabled",
            "secret": box.seal(Secret(secret)),
            "created_at": 0,
            "updated_at": 0,
        }
        for name, secret in _SECRETS.items()
    ]
    await database.write(lambda connection: connection.execute(insert(webhook_endpoints), rows))
    return {name: str(row["id"]) for name, row in zip(_SECRETS, rows, strict=True)}


async def _run(plan: Plan, shared: Launcher, number: int, result: Result, enough: asyncio.Event) -> None:
    """One service after the other, each killed at some moment, until there were enough kills; the last one stays."""
    random = plan.random(f"dispatcher {number}")
    while True:
        service = await shared.start(_environment(plan), plan.folder / "service.log", variant=plan.variant)
        waits = [asyncio.create_task(each.wait()) for each in (service.exited, enough)]
        is_last = result.kills >= plan.kills
        seconds = None if is_last else random.uniform(0.05, plan.kill_seconds)
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        service.signal(signal.SIGKILL)
        await service.exited.wait()
        if enough.is_set():
            return
        result.kills += 1


async def _write_events(plan: Plan, database: Database) -> int:
    """Written over as long as the kills take, at least."""
    left = [plan.events // _EVENTS_OF_ORDER]

    async def write(number: int) -> int:
        random, written = plan.random(f"writer {number}"), 0
        while left[0] > 0:
            count = min(left[0], random.randint(1, plan.orders_at_once))
            left[0] -= count
            held = 0 if database.url.get_backend_name() == "sqlite" else random.choice((0, random.uniform(0, 0.5)))
            written += await _write_orders(database, count, held, random)
            await asyncio.sleep(random.uniform(0, plan.rest_seconds))
        return written

    return sum(await asyncio.gather(*(write(number) for number in range(_WRITERS))))


async def _write_orders(database: Database, count: int, held_seconds: float, random: Random) -> int:
    made = [_order(random) for _ in range(count)]

    async def phase(connection: Any) -> None:
        for index, table in enumerate((orders, payments, receipts)):
            await connection.execute(insert(table), [rows[index] for rows in made])
        await connection.execute(insert(events), [event for *_, rows in made for event in rows])
        await asyncio.sleep(held_seconds)

    while True:
        with suppress(Busy):
            await database.write(phase)
            break
    return count * _EVENTS_OF_ORDER


def _order(random: Random) -> tuple[Any, ...]:
    """The rows of a paid order: order, payment, receipt, and two events."""
    order_id, payment_id, owner, at = new_id(), new_id(), random.choice(_OWNERS), time.time_ns() // 1_000_000
    order = _ORDER | {"id": order_id, "owner_sub": owner, "created_at": at, "updated_at": at}
    order |= {"latest_payment_id": payment_id, "paid_payment_id": payment_id}
    payment = _PAYMENT | {"id": payment_id, "order_id": order_id, "owner_sub": owner, "caller": owner}
    payment |= {"processor_reference": f"sandbox_{payment_id}", "created_at": at, "claimed_at": at, "settled_at": at}
    receipt = {"id": payment_id, "payment_id": payment_id, "order_id": order_id, "created_at": at}
    happened = ((1, "payment.succeeded", payment_id, "processing"), (2, "order.approved", order_id, "placed"))
    names = ("seq", "type", "subject_id", "from_state")
    told = {"order_id": order_id, "actor": owner, "created_at": at}
    return order, payment, receipt, [told | {"id": new_id()} | dict(zip(names, each, strict=True)) for each in happened]


async def _let_time_pass(plan: Plan, database: Database, enough: asyncio.Event) -> None:
    """What is not leased is due now; and what is, when nobody waits for that."""
    beyond, every_seconds = (_LEASE_MILLISECONDS, 2.0) if plan.waits_for_leases else (0, 0.4)
    while not enough.is_set():
        await asyncio.sleep(every_seconds)
        values = {"latest": time.time_ns() // 1_000_000 + beyond}
        with suppress(Busy):
            await database.write(lambda connection, values=values: connection.execute(text(_MAKE_DUE), values))


async def _until_sent(plan: Plan) -> None:
    """Or until patience has ended: then the checker says what is still open."""
    until = time.monotonic() + plan.patience_seconds
    while time.monotonic() < until:
        if not await read_table(plan.database_url, _OPEN) and not await read_table(plan.database_url, _PENDING):
            return
        await asyncio.sleep(0.2)


async def _say_how_far(how_far: Callable[[], str], say: Callable[[str], None], enough: asyncio.Event) -> None:
    while not enough.is_set():
        say(how_far())
        for _ in range(50):
            await asyncio.sleep(0.2)
            if enough.is_set():
                break


def _environment(plan: Plan) -> dict[str, str]:
    settings = {
        "ENV": "development",
        "REFLECTION": "false",
        "LISTEN": "127.0.0.1:0",
        "DATABASE_URL": plan.database_url,
        "ISSUER": DEVELOPMENT_ISSUER,
        "JWKS": str(Issuer(plan.folder / "issuer").jwks_path),
        "PROCESSOR": "sandbox",
        "WEBHOOK_NETWORKS_ALLOWED": "127.0.0.0/8",
        "WEBHOOK_NETWORKS_ALLOWED_TO": "everybody",
        "WEBHOOK_PORTS": "any",
        "WEBHOOK_POLL_SECONDS": "0.2",
        "DRAIN_SECONDS": "1",
    }
    return {f"PAYORDER_{name}": value for name, value in settings.items()}


def print_result(result: Result) -> None:
    write = sys.stdout.write
    for finding in result.findings[:10]:
        write(f"FINDING {finding}\n")
    rate = result.states.total() / result.seconds
    write(f"{result.seconds:.0f} s, {rate:.0f} deliveries/s with everything on one machine\n")
    write("| " + " | ".join(["seed", *result.table]) + " |\n")
    write("|" + "---|" * (len(result.table) + 1) + "\n")
    write("| " + " | ".join(map(str, [result.seed, *result.table.values()])) + " |\n")


async def run(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}, {options.engine}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="payorder-deliver-"))
    async with databases(options.engine, folder) as database, launcher(folder) as shared:
        plan = Plan(
            seed=options.seed,
            database_url=await database(folder),
            folder=folder,
            events=options.events,
            kills=options.kills,
            waits_for_leases=True,
            variant=options.variant,
            patience_seconds=1800,
        )
        await _migrate(plan.database_url)
        result = await campaign(plan, shared, say=lambda line: print(line, flush=True))
        print_result(result)
    if result.findings:
        print(f"the records are in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(2**32))
    parser.add_argument("--variant", help="a deliberately broken version, by name: it must be found out")
    sys.exit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
