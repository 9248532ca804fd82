"""The schema's versions: the scripts make what tables.py says, on each engine, forwards, twice and backwards."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from conftest import ENGINES, new_database
from payorder.adapters.database.engine import Database
from payorder.adapters.database.migrate import REVISION, alembic_config, is_current, upgrade
from payorder.adapters.database.tables import metadata
from payorder.domain.errors import Busy
from payorder.local.postgres import EmbeddedPostgres


@pytest.fixture(params=ENGINES)
async def empty(request: pytest.FixtureRequest, tmp_path: Path, postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    opened = Database(await new_database(request.param, tmp_path, postgres), pool_size=1, pool_timeout_seconds=5)
    yield opened
    await opened.close()


def heads(connection: Connection) -> list[str]:
    return list(ScriptDirectory.from_config(alembic_config(connection)).get_heads())


def differences(connection: Connection) -> list[object]:
    """Without defaults: Alembic takes an empty text for another one than the same text read back from SQLite."""
    found = compare_metadata(MigrationContext.configure(connection), metadata)
    return [each for each in found if not (isinstance(each, list) and each[0][0] == "modify_default")]


def checks(connection: Connection) -> dict[str, set[str]]:
    """Alembic does not compare check constraints; their names are."""
    inspector = inspect(connection)
    return {
        table: {str(check["name"]) for check in inspector.get_check_constraints(table)} for table in metadata.tables
    }


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


async def test_the_migrated_schema_is_that_of_the_tables(database: Database) -> None:
    async with database.read() as connection:
        assert [] == await connection.run_sync(differences)
        assert {
            name: {str(each.name) for each in table.constraints if str(each.name).startswith("ck_")}
            for name, table in metadata.tables.items()
        } == await connection.run_sync(checks)


async def test_the_newest_script_is_the_revision_that_the_code_wants(database: Database) -> None:
    async with database.read() as connection:
        assert [REVISION] == await connection.run_sync(heads)


async def test_migrating_again_changes_nothing(database: Database) -> None:
    async with database.read() as connection:
        before = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all()
    for _ in range(2):
        await upgrade(database)
    async with database.read() as connection:
        after = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all()
        assert ([REVISION], [REVISION]) == (before, after)
        assert [] == await connection.run_sync(differences)


async def test_a_migration_can_be_taken_back_and_made_again(empty: Database) -> None:
    await upgrade(empty)
    await empty.write(lambda connection: connection.run_sync(downgrade))
    async with empty.read() as connection:
        assert {"alembic_version"} == await connection.run_sync(tables)
        assert not await is_current(connection)
    await upgrade(empty)
    async with empty.read() as connection:
        assert await is_current(connection)


def downgrade(connection: Connection) -> None:
    command.downgrade(alembic_config(connection), "base")


async def test_a_migration_that_fails_leaves_nothing(empty: Database) -> None:
    async def spoil(connection: AsyncConnection) -> None:
        await connection.execute(text("CREATE TABLE payments (id TEXT)"))

    await empty.write(spoil)
    with pytest.raises((DBAPIError, Busy)):
        await upgrade(empty)
    async with empty.read() as connection:
        assert {"payments"} == await connection.run_sync(tables)


@pytest.mark.parametrize(("version", "expected"), [("0000", False), (REVISION, True), ("9999", True)])
async def test_a_newer_schema_is_good_enough_and_an_older_is_not(
    database: Database, version: str, expected: bool
) -> None:
    async def set_version(connection: AsyncConnection) -> None:
        await connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})

    await database.write(set_version)
    async with database.read() as connection:
        assert expected == await is_current(connection)
