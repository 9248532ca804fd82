"""`python -m bench.relay_floor URL RECEIVER`: deliveries claimed, signed, sent and written down in one straight line.

A plain relay of the same rows by the same libraries: one endpoint and one secret, which are known beforehand, no lanes,
no limits, no retries, nothing heard of an answer but its status.
"""

import asyncio
import sys
import time
from typing import Any

import aiohttp
import asyncpg
import uvloop

from bench.events import SECRET
from payorder.domain.webhook_signature import signed_headers

_AT_ONCE = 512
_SENDS_MAX = 32
_IDLE_SECONDS = 0.05
_HTTP_OK = 200
_NOW = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
_CLAIM = f"""
UPDATE webhook_deliveries SET lane = NULL, claims = 1, next_attempt_at = {_NOW} + 60000
WHERE id IN (
    SELECT id FROM webhook_deliveries
    WHERE lane = (SELECT id FROM webhook_endpoints WHERE state = 'enabled')
    ORDER BY next_attempt_at LIMIT {_AT_ONCE} FOR UPDATE SKIP LOCKED
)
RETURNING id, event_id, body
"""
_FINISH = f"""
WITH finished AS (
    UPDATE webhook_deliveries SET attempts = 1, state = 'delivered', next_attempt_at = NULL
    WHERE id = ANY ($1::text[]) RETURNING id
)
INSERT INTO webhook_attempts (delivery_id, number, claim, at, status_class, delivered)
SELECT id, 1, 1, {_NOW}, 2, true FROM finished
"""


async def relay(url: str, receiver: str) -> None:
    """Until it is ended. While some are sent, the next are claimed."""
    async with asyncpg.create_pool(url, min_size=2, max_size=2) as pool, aiohttp.ClientSession() as session:
        claiming = asyncio.create_task(pool.fetch(_CLAIM))
        while True:
            claimed = await claiming
            if not claimed:
                await asyncio.sleep(_IDLE_SECONDS)
            claiming = asyncio.create_task(pool.fetch(_CLAIM))
            await _send_all(session, receiver, claimed)
            if claimed:
                await pool.execute(_FINISH, [row["id"] for row in claimed])


async def _send_all(session: aiohttp.ClientSession, receiver: str, claimed: list[Any]) -> None:
    waiting = iter(claimed)

    async def send() -> None:
        for row in waiting:
            headers = signed_headers(row["event_id"], int(time.time()), row["body"], [SECRET])
            async with session.post(receiver, data=row["body"], headers=headers) as answer:
                assert answer.status == _HTTP_OK

    async with asyncio.TaskGroup() as sending:
        for _ in range(_SENDS_MAX):
            sending.create_task(send())


if __name__ == "__main__":
    uvloop.run(relay(*sys.argv[1:]))
