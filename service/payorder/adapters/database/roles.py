"""What the role that serves may do on PostgreSQL: add to the audit log and read it, but not change or shorten it."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.engine import Database

_READ = ("SELECT",)
_ADDED_TO = ("SELECT", "INSERT")
_CHANGED = ("SELECT", "INSERT", "UPDATE")
_TAKEN_FROM = ("SELECT", "INSERT", "DELETE")
_CHANGED_AND_TAKEN_FROM = ("SELECT", "INSERT", "UPDATE", "DELETE")
PRIVILEGES = {
    "alembic_version": _READ,
    "audit_heads": _CHANGED,
    "audit_log": _ADDED_TO,
    "audit_seals": _ADDED_TO,
    "events": _CHANGED,
    "findings": _ADDED_TO,
    "keyed_replies": _TAKEN_FROM,
    "orders": _CHANGED,
    "payments": _CHANGED,
    "receipts": _ADDED_TO,
    "refunds": _CHANGED,
    "statistics": _TAKEN_FROM,
    "webhook_attempts": _TAKEN_FROM,
    "webhook_deliveries": _CHANGED_AND_TAKEN_FROM,
    "webhook_endpoints": _CHANGED_AND_TAKEN_FROM,
}

_SCHEMA_FOR = text("SELECT current_schema() FROM pg_roles WHERE rolname = :role")
_USE_SCHEMA = "GRANT USAGE ON SCHEMA {schema} TO {role}"
_TAKE_ALL = "REVOKE ALL ON {table} FROM PUBLIC, {role}"
_GIVE = "GRANT {privileges} ON {table} TO {role}"
_MIGHT = text(
    "SELECT bool_or(me.rolsuper) AS is_superuser, bool_or(pg_has_role(kept.relowner, 'MEMBER')) AS is_owner,"
    " bool_or(has_table_privilege(kept.oid, 'UPDATE, DELETE, TRUNCATE')) AS may_change, count(*) AS tables"
    " FROM pg_class AS kept, pg_roles AS me"
    " WHERE kept.oid IN (to_regclass('audit_log'), to_regclass('audit_seals')) AND me.rolname = current_user"
)
_TABLES_KEPT = 2


class RoleFault(Exception):
    """Why a role cannot serve, or cannot be made to."""


async def grant(database: Database, role: str) -> None:
    """Give `role` what serving needs, and take all else of these tables from it and the public. Raises RoleFault."""
    if database.url.get_backend_name() != "postgresql":
        raise RoleFault("only PostgreSQL has roles")
    await database.write(lambda connection: _grant(connection, role))


async def _grant(connection: AsyncConnection, role: str) -> None:
    quote = connection.dialect.identifier_preparer.quote_identifier
    schema = (await connection.execute(_SCHEMA_FOR, {"role": role})).scalar_one_or_none()
    if schema is None:
        raise RoleFault("there is no such role: create it first, with LOGIN and nothing else")
    await connection.exec_driver_sql(_USE_SCHEMA.format(schema=quote(schema), role=quote(role)))
    for table, privileges in PRIVILEGES.items():
        await connection.exec_driver_sql(_TAKE_ALL.format(table=table, role=quote(role)))
        await connection.exec_driver_sql(_GIVE.format(privileges=", ".join(privileges), table=table, role=quote(role)))


async def refuse_mighty(database: Database) -> None:
    """Raises RoleFault when the role of this database's URL could change the audit log, and Busy."""
    if database.url.get_backend_name() != "postgresql":
        return
    async with database.read() as connection:
        might = (await connection.execute(_MIGHT)).one()
    if might.tables < _TABLES_KEPT:
        raise RoleFault("there is no audit log: run payorder migrate first")
    faults = {
        "is a superuser": might.is_superuser,
        "owns the audit log": might.is_owner,
        "may change or shorten the audit log": might.may_change,
    }
    found = [fault for fault, is_so in faults.items() if is_so]
    if found:
        raise RoleFault(f"its role {found[0]}: serve with one that payorder migrate --application-role was given")
