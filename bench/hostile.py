"""`python -m bench.hostile KIND FILE`: receivers that do harm, each on a port of its own, until they are ended.

Where each of them is, by what it does, is written to the file. What they do is what the receivers of the tests do, so
that `tests/` has to be on the path. They are in a process of their own because floods would hold up whoever measures.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from support.hostile import HOSTILE, OK, Behaviour, Visit, receiver

# Each takes an attempt all of its time, or sends as much as it is let.
_WORST = (
    "hangs after accept",
    "hangs in the status",
    "hangs in the headers",
    "hangs after the headers",
    "no length, no end",
    "a byte at a time in the headers",
    "a byte at a time in the body",
    "a chunk at a time",
    "a 100 Continue at a time",
    "10 GB of body",
    "a body until it closes, which it never does",
    "endless chunks",
    "a chunk of 2**64 bytes",
    "an endless chunk extension",
    "endless trailers",
    "an endless header",
    "an endless status",
    "endless headers",
    "endless 100 Continue",
    "endless 103 Early Hints",
)
_HANGING = "hangs after accept"
_LATE = 20
# An attempt may take fifteen.
_LATE_SECONDS = 14.0
_QUICK_SECONDS, _SILENT_SECONDS = 5.0, 20.0


async def _late(visit: Visit) -> None:
    while True:
        await visit.request()
        await asyncio.sleep(_LATE_SECONDS)
        await visit.say(OK)


def _alternating() -> Behaviour:
    """By the clock, so that it hangs on all connections at once."""
    began = time.monotonic()

    async def behave(visit: Visit) -> None:
        while True:
            await visit.request()
            if (time.monotonic() - began) % (_QUICK_SECONDS + _SILENT_SECONDS) > _QUICK_SECONDS:
                await visit.wait()
            await visit.say(OK)

    return behave


_KINDS: Mapping[str, Mapping[str, Behaviour]] = {
    "different": {name: HOSTILE[name][0] for name in _WORST},
    "hanging": {_HANGING: HOSTILE[_HANGING][0]},
    "late": {f"late {number}": _late for number in range(1, _LATE + 1)},
    "alternating": {"alternating": _alternating()},
}


async def serve(kind: str, file: Path) -> None:
    async with AsyncExitStack() as stack:
        urls: dict[str, str] = {}
        for name, behaviour in _KINDS[kind].items():
            here = await stack.enter_async_context(receiver(behaviour))
            urls[name] = f"http://127.0.0.1:{here.port}/"
        _write(file, json.dumps(urls))
        await asyncio.Event().wait()


def _write(file: Path, text: str) -> None:
    """Whoever finds the file finds all of it."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(file)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
