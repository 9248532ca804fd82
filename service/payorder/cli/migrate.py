"""`payorder migrate`."""

from payorder.adapters.database import migrate as migrations
from payorder.adapters.database.engine import Database
from payorder.cli.process import run, settings_or_exit
from payorder.config import Settings


def migrate() -> None:
    run(_migrate(settings_or_exit()))


async def _migrate(settings: Settings) -> None:
    database = Database(settings.database_url, pool_size=1, pool_timeout_seconds=settings.database_pool_timeout_seconds)
    try:
        await migrations.upgrade(database)
    finally:
        await database.close()
