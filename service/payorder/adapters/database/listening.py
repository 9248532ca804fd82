"""PostgreSQL's LISTEN: being told at once of what other replicas have written, on one connection for the process.

What is missed while there is no connection is found by who polls.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg
from sqlalchemy.engine import URL

from payorder.adapters.database import postgresql
from payorder.adapters.database.fan_out import CHANNEL

_PROBE = "SELECT 1"
# A connection that was forgotten on the way does not say so: it must be asked something now and then.
_PROBE_EVERY_SECONDS = 20.0
_CONNECT_AGAIN_SECONDS = 1.0
_AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class EventListener:
    """Tells `on_order` the id of every order that a notification names, from `run` to `stop`."""

    def __init__(self, url: URL, on_order: Callable[[str], None]) -> None:
        self._connect_arguments = postgresql.connect_arguments(url)
        self._on_order = on_order
        self._is_stopping = False
        # That it is to stop, or has lost its connection.
        self._stirred = asyncio.Event()

    async def run(self) -> None:
        while not self._is_stopping:
            with suppress(*_AWAY):
                await self._listen()
            await self._rest(_CONNECT_AGAIN_SECONDS)

    def stop(self) -> None:
        self._is_stopping = True
        self._stirred.set()

    async def _listen(self) -> None:
        connection: Any = await asyncpg.connect(**self._connect_arguments)
        try:
            connection.add_termination_listener(self._cut_off)
            await connection.add_listener(CHANNEL, self._notified)
            await self._rest(_PROBE_EVERY_SECONDS)
            while not self._is_stopping:
                await connection.execute(_PROBE)
                await self._rest(_PROBE_EVERY_SECONDS)
        finally:
            # Without a goodbye, which a server that is away would have to hear.
            connection.terminate()

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        if not self._is_stopping:
            self._stirred.clear()

    def _cut_off(self, _connection: object) -> None:
        self._stirred.set()

    def _notified(self, _connection: object, _process_id: int, _channel: str, payload: object) -> None:
        # Ids of orders that something has happened to, as whoever fans out writes them.
        for order_id in str(payload).split(","):
            self._on_order(order_id)
