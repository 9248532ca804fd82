"""On PostgreSQL the service works under a role that can add to the audit log, and do nothing else to it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from conftest import NewMigrated
from payorder.adapters.database import roles
from payorder.adapters.database.engine import Database
from payorder.adapters.database.tables import metadata
from support.requests import payment
from support.service import Service, serving
from support.signing_keys import new_signing_key

READ_WRITE_ADMIN = "read:orders write:orders admin"


@dataclass(frozen=True, slots=True)
class Urls:
    owner: str
    application: str


@pytest.fixture
async def urls(tmp_path: Path, new_migrated: NewMigrated) -> AsyncIterator[Urls]:
    """One migrated database: as its owner, and as a role that was given what serving needs."""
    owner = await new_migrated("postgresql", tmp_path)
    connection = await asyncpg.connect(owner)
    name = f'app "{os.urandom(4).hex()}"'
    quoted = name.replace('"', '""')
    await connection.execute(f'CREATE ROLE "{quoted}" LOGIN')
    status, told = await command(owner, "migrate", "--application-role", name)
    assert (0, "") == (status, told)
    # As libpq reads it: the name stands in the query, so that no character of it means anything.
    application = owner.replace("postgres@", "") + "&user=" + name.replace(" ", "%20").replace('"', "%22")
    yield Urls(owner, application)
    await connection.execute(f'DROP OWNED BY "{quoted}"')
    await connection.execute(f'DROP ROLE "{quoted}"')
    await connection.close()


async def command(url: str, *words: str, **settings: str) -> tuple[int, str]:
    wanted = {
        "ENV": "production",
        "DATABASE_URL": url,
        "ISSUER": "https://issuer.example",
        "JWKS": "https://issuer.example/jwks",
        "PROCESSOR": "sandbox",
        "FINGERPRINT_KEY": "f" * 32,
        "WEBHOOK_SECRET_KEYS": "k" * 43 + "=",
        "PUBLIC_URL": "https://pay.example",
        **settings,
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PAYORDER_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "payorder", *words),
        env=environment | {f"PAYORDER_{name}": value for name, value in wanted.items()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, output.decode()


def test_every_table_has_its_privileges() -> None:
    assert {*metadata.tables, "alembic_version"} == set(roles.PRIVILEGES)


async def test_everything_works_under_the_role(urls: Urls, tmp_path: Path) -> None:
    key = new_signing_key(tmp_path / "key.pem")
    settings = {"audit_signing_key": str(key), "audit_seal_every_seconds": 0.1}
    async with serving(tmp_path, urls.application, migrates=False, **settings) as service:
        paid = await paid_order(service)
        token = service.token("root", READ_WRITE_ADMIN)
        await good(service, "UpdateOrderStatus", {"orderId": paid, "status": "shipped"}, token)
        await good(service, "ForceCancelOrder", {"orderId": paid, "reason": "lost on the way"}, token)
        own = await paid_order(service)
        await good(service, "CancelOrder", {"orderId": own}, service.token())
        for rpc in ("ListAllOrders", "GetDashboardStats", "ListAuditLogs"):
            await good(service, rpc, {}, token)
    status, told = await command(urls.application, "audit", "verify", AUDIT_SIGNING_KEY=str(key))
    assert (0, "nothing is wrong") == (status, told.splitlines()[-1])


async def paid_order(service: Service) -> str:
    order = await service.new_order()
    await good(service, "PayOrder", {"orderId": order, "payment": payment()}, service.token())
    return order


async def good(service: Service, rpc: str, request: dict[str, object], token: str) -> None:
    answer = await service.grpc.call(rpc, request, token=token)
    assert ("OK", None) == (answer.code, answer.reason)


@pytest.mark.parametrize("table", ["audit_log", "audit_seals"])
@pytest.mark.parametrize("change", ["UPDATE {} SET prev_hash = ''", "DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}"])
async def test_the_role_cannot_change_what_is_kept(urls: Urls, change: str, table: str) -> None:
    connection = await asyncpg.connect(urls.application)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(change.format(table))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("SET session_replication_role = replica")
    finally:
        await connection.close()


async def test_a_role_that_is_too_mighty_does_not_serve(urls: Urls) -> None:
    assert (
        1,
        "payorder: PAYORDER_DATABASE_URL: its role is a superuser or can become one:"
        " serve with one that payorder migrate --application-role was given",
    ) == await last_line(urls.owner)
    connection = await asyncpg.connect(urls.owner)
    role = await (application := await asyncpg.connect(urls.application)).fetchval("SELECT quote_ident(current_user)")
    await application.close()
    for change, fault in (
        (f"GRANT UPDATE ON audit_log TO {role}", "may change or shorten the audit log"),
        (f"GRANT TRUNCATE ON audit_seals TO {role}", "may change or shorten the audit log"),
        (f"ALTER TABLE audit_log OWNER TO {role}", "owns the audit log, its schema or its database"),
    ):
        await connection.execute(f"REVOKE ALL ON audit_log, audit_seals FROM {role}")
        await connection.execute(change)
        status, told = await last_line(urls.application)
        assert (1, True) == (status, fault in told), told
    await connection.execute("ALTER TABLE audit_log OWNER TO postgres")
    await connection.close()


# `other` is a role that the application is a member of, and does not inherit from.
MIGHTY = {
    "a column": ("GRANT UPDATE (detail) ON audit_log TO {app}", "may change"),
    "triggers": ("GRANT TRIGGER ON audit_seals TO {app}", "may change"),
    "another role's privileges": ("GRANT DELETE ON audit_log TO {other}", "may change"),
    "the owner of the table": ("ALTER TABLE audit_seals OWNER TO {other}", "owns"),
    "the owner of the schema": ("ALTER SCHEMA public OWNER TO {app}", "owns"),
    "the owner of the database": ("ALTER DATABASE {database} OWNER TO {app}", "owns"),
    "a superuser's role": ("ALTER ROLE {other} SUPERUSER", "is a superuser"),
    "commands of the server": ("GRANT pg_execute_server_program TO {other}", "is a superuser"),
    "making roles": ("ALTER ROLE {app} CREATEROLE", "may make roles"),
}


async def test_whatever_would_let_the_role_remove_the_audit_log_is_refused(urls: Urls) -> None:
    owner, other = await asyncpg.connect(urls.owner), f"other_{os.urandom(4).hex()}"
    application = Database(urls.application, pool_size=1, pool_timeout_seconds=5)
    async with application.read() as connection:
        names = (
            await connection.execute(text("SELECT quote_ident(current_user), quote_ident(current_database())"))
        ).one()
    app, database = names
    await owner.execute(f"CREATE ROLE {other}; ALTER ROLE {app} NOINHERIT; GRANT {other} TO {app}")
    await roles.refuse_mighty(application)
    for change, fault in MIGHTY.values():
        await owner.execute(change.format(app=app, other=other, database=database))
        with pytest.raises(roles.RoleFault, match=fault):
            await roles.refuse_mighty(application)
        await owner.execute(
            f"REVOKE ALL ON audit_log, audit_seals FROM {app}, {other}; REVOKE UPDATE (detail) ON audit_log FROM {app};"
            f"ALTER TABLE audit_seals OWNER TO postgres; ALTER SCHEMA public OWNER TO pg_database_owner;"
            f"ALTER DATABASE {database} OWNER TO postgres; REVOKE pg_execute_server_program FROM {other};"
            f"ALTER ROLE {other} NOSUPERUSER; ALTER ROLE {app} NOCREATEROLE"
        )
    await roles.refuse_mighty(application)
    await application.close()
    await owner.execute(f"DROP ROLE {other}")
    await owner.close()


async def last_line(url: str) -> tuple[int, str]:
    status, told = await command(url, "serve", LISTEN="127.0.0.1:0")
    return status, told.strip().rpartition("\n")[2]


async def test_only_a_role_that_is_there_gets_privileges(urls: Urls, tmp_path: Path) -> None:
    status, told = await command(urls.owner, "migrate", "--application-role", "nobody")
    assert (1, True) == (status, "there is no such role" in told)
    status, told = await command(f"sqlite:///{tmp_path / 'payorder.db'}", "migrate", "--application-role", "nobody")
    assert (1, "payorder: only PostgreSQL has roles\n") == (status, told)
