"""`payorder migrate`."""

import sys

from payorder.adapters.database import migrate as migrations
from payorder.adapters.database.engine import Database
from payorder.cli.process import run, settings_or_exit
from payorder.config import Settings
from payorder.domain.errors import Busy


def migrate() -> None:
    try:
        run(_migrate(settings_or_exit()))
    except Busy:
        sys.exit("payorder: the database cannot be reached")


async def _migrate(settings: Settings) -> None:
    database = Database(settings.database_url, pool_size=1, pool_timeout_seconds=settings.database_pool_timeout_seconds)
    try:
        await migrations.upgrade(database)
    finally:
        await database.close()
