"""`python -m bench.fail_once URL`: everything that is due fails once, and then waits for an hour.

Nothing is sent: it is claimed and written down by the service's own statements.
"""

import asyncio
import sys

from payorder.adapters.database.engine import Database
from payorder.adapters.database.outbox import DatabaseOutbox
from payorder.domain.webhook import DeliveryState, Dispatch
from payorder.edge.event_bodies import JsonBodies
from payorder.ports.outbox import Ended, Rooms

_AT_ONCE = 2000
_RETRY_SECONDS = 3600.0
_ROOMS = Rooms(at_most=_AT_ONCE, each=_AT_ONCE, busy={}, after="", lease_seconds=60.0)
_SERVER_ERROR = 5
_BODIES = JsonBodies(public_url="")


async def fail_once(url: str) -> None:
    database = Database(url, pool_size=5, pool_timeout_seconds=5)
    outbox = DatabaseOutbox(database)
    while dispatches := await outbox.claim(_ROOMS):
        await outbox.finish([_failed(dispatch) for dispatch in dispatches], _BODIES)
    await database.close()


def _failed(dispatch: Dispatch) -> Ended:
    return Ended(
        delivery_id=dispatch.delivery_id,
        endpoint_id=dispatch.endpoint_id,
        claim=dispatch.claim,
        state=DeliveryState.PENDING,
        retry_seconds=_RETRY_SECONDS,
        status_class=_SERVER_ERROR,
    )


if __name__ == "__main__":
    asyncio.run(fail_once(sys.argv[1]))
