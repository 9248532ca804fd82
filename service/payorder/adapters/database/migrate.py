"""The schema's versions: bring a database up to date, and tell whether it is."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Text, column, select, table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.engine import Database

if TYPE_CHECKING:
    from alembic.config import Config

# The newest revision in migrations/versions. Revisions are numbered, so that they compare as text.
REVISION = "0002"

_VERSION = select(column("version_num", Text)).select_from(table("alembic_version"))


async def upgrade(database: Database) -> None:
    """Bring the schema to REVISION in one transaction. Idempotent; run it once per deployment."""
    await database.write(lambda connection: connection.run_sync(_upgrade))


async def is_current(connection: AsyncConnection) -> bool:
    """Whether the schema is at least this version's: a newer one only adds (expand first, contract later)."""
    try:
        version = (await connection.execute(_VERSION)).scalar_one_or_none()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return False  # no such table: never migrated
    return version is not None and version >= REVISION


def alembic_config(connection: Connection) -> "Config":
    # Alembic takes most of a second to import, and a serving process does not need it.
    from alembic.config import Config  # noqa: PLC0415 - as said above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - as above

    command.upgrade(alembic_config(connection), "head")
