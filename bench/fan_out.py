"""`python -m bench.fan_out URL`: the fan-out alone, over everything that waits; says how many a second."""

import asyncio
import sys
import time

from payorder.adapters.database.engine import Database
from payorder.adapters.database.outbox import DatabaseOutbox
from payorder.edge.event_bodies import JsonBodies


async def fan_out(url: str) -> None:
    database = Database(url, pool_size=5, pool_timeout_seconds=5)
    outbox, bodies = DatabaseOutbox(database), JsonBodies(public_url="")
    began, cpu, count = time.perf_counter(), time.process_time(), 0
    while done := (await outbox.fan_out(bodies, 500)).events:
        count += done
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"  fan-out: {count / seconds:,.0f}/s, {cpu / count * 1e6:.0f} us of processor time each", flush=True)
    await database.close()


if __name__ == "__main__":
    asyncio.run(fan_out(sys.argv[1]))
