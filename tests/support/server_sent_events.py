"""Server-sent events as a browser reads them (WHATWG HTML, section 9.2.6)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    id: str
    type: str
    data: str


async def events_in(response: aiohttp.ClientResponse) -> AsyncIterator[ServerSentEvent]:
    """Until the server ends the answer. An event without data is none."""
    fields = {"id": "", "event": "message", "data": ""}
    async for raw in response.content:
        line = raw.decode().removesuffix("\n")
        name, _, value = line.partition(":")
        if line == "" and fields["data"]:
            yield ServerSentEvent(fields["id"], fields["event"], fields["data"])
        if line == "":
            fields |= {"event": "message", "data": ""}
        elif name in fields:
            fields[name] = value.removeprefix(" ")
