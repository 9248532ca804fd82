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
# Whatever one can become counts, inherited or not: of its database the owner is a member of pg_database_owner, too.
_MIGHT = text(
    "SELECT bool_or(could.rolsuper OR could.rolname IN ('pg_execute_server_program', 'pg_write_server_files'))"
    "  AS is_superuser,"
    " bool_or(could.rolcreaterole) AS makes_roles,"
    " bool_or(could.oid IN (kept.relowner, home.nspowner, here.datdba)) AS is_owner,"
    " bool_or(has_table_privilege(could.oid, kept.oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER')"
    "  OR has_any_column_privilege(could.oid, kept.oid, 'UPDATE')) AS may_change,"
    " bool_and(to_regclass('audit_log') IS NOT NULL AND to_regclass('audit_seals') IS NOT NULL) AS is_there"
    " FROM pg_class AS kept JOIN pg_namespace AS home ON home.oid = kept.relnamespace"
    " JOIN pg_database AS here ON here.datname = current_database()"
    " JOIN pg_roles AS could ON pg_has_role(could.oid, 'MEMBER')"
    " WHERE kept.oid IN (to_regclass('audit_log'), to_regclass('audit_seals'))"
)


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
    """Raises RoleFault when the role of this database's URL could change or remove the audit log, and Busy."""
    if database.url.get_backend_name() != "postgresql":
        return
    async with database.read() as connection:
        might = (await connection.execute(_MIGHT)).one()
    if not might.is_there:
        raise RoleFault("there is no audit log: run payorder migrate first")
    faults = {
        "is a superuser or can become one": might.is_superuser,
        "may make roles": might.makes_roles,
        "owns the audit log, its schema or its database": might.is_owner,
        "may change or shorten the audit log": might.may_change,
    }
    found = [fault for fault, is_so in faults.items() if is_so]
    if found:
        raise RoleFault(f"its role {found[0]}: serve with one that payorder migrate --application-role was given")
