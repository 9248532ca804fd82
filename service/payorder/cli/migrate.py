"""`payorder migrate`."""

import sys

from payorder.adapters.database import migrate as migrations
from payorder.adapters.database import roles
from payorder.adapters.database.engine import Database
from payorder.cli.process import run, settings_or_exit
from payorder.config import Settings
from payorder.domain.errors import Busy


def migrate(application_role: str | None) -> None:
    try:
        run(_migrate(settings_or_exit(), application_role))
    except Busy:
        sys.exit("payorder: the database cannot be reached")
    except roles.RoleFault as fault:
        sys.exit(f"payorder: {fault}")


async def _migrate(settings: Settings, application_role: str | None) -> None:
    database = Database(settings.database_url, pool_size=1, pool_timeout_seconds=settings.database_pool_timeout_seconds)
    try:
        await migrations.upgrade(database)
        if application_role is not None:
            await roles.grant(database, application_role)
    finally:
        await database.close()
