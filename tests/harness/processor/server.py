"""The processor over HTTP on loopback.

POST /charge, /cancel {key, amount_minor, currency}   POST /refund {key, reference, amount_minor, currency}
GET /charges?since=   GET /charge?key=   GET /pending: how many late charges are still to come
POST /outage {seconds}: for that long every connection is reset unheard
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from harness.processor.accounts import Accounts, Record
from harness.processor.behaviour import Behaviour, behaviour_of
from harness.processor.ledger import Ledger

Body = dict[str, Any]


class ProcessorServer:
    def __init__(self, ledger: Ledger, seed: int, mixes: Mapping[str, Mapping[str, int]]) -> None:
        self._ledger = ledger
        self._accounts = Accounts(ledger)
        self._seed = seed
        self._mixes = mixes
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._later: set[asyncio.Task[None]] = set()
        self._out_until = 0.0

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._unless_out])
        application.add_routes(
            [
                web.post("/charge", self.charge),
                web.post("/cancel", self.cancel),
                web.post("/refund", self.refund),
                web.get("/charges", self.charges),
                web.get("/charge", self.find),
                web.get("/pending", self.pending),
                web.post("/outage", self.outage),
            ]
        )
        return application

    async def charge(self, request: web.Request) -> web.StreamResponse:
        body, behaviour = await self._read(request, "charge")
        key, amount = body["key"], (body["amount_minor"], body["currency"])
        if behaviour.name == "late" and key not in self._accounts.records:
            self._start_later(key, amount, behaviour.delay_seconds)
            await asyncio.sleep(behaviour.delay_seconds)
            return web.json_response({"status": "pending"}, status=202)

        async def decide() -> Body:
            if behaviour.name == "decline":
                return _tell(await self._accounts.decline(key, *amount, behaviour.decline_code))
            return _tell(await self._accounts.charge(key, *amount))

        return await _answer(request, behaviour, decide)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        body, behaviour = await self._read(request, "cancel")

        async def decide() -> Body:
            return _tell(await self._accounts.cancel(body["key"], body["amount_minor"], body["currency"]))

        return await _answer(request, behaviour, decide)

    async def refund(self, request: web.Request) -> web.StreamResponse:
        body, behaviour = await self._read(request, "refund")

        async def decide() -> Body:
            reference = await self._accounts.refund(body["key"], body["reference"], body["amount_minor"])
            if reference is None:
                return {"status": "refused"}
            return {"status": "refunded", "reference": reference, "amount_minor": body["amount_minor"]}

        return await _answer(request, behaviour, decide)

    async def charges(self, request: web.Request) -> web.StreamResponse:
        since = int(request.query["since"])
        listed = [
            {"key": key, "refunded_minor": sum(record.refunds.values()), **_tell(record)}
            for key, record in self._accounts.records.items()
            if record.state == "charged" and record.at >= since
        ]
        return web.json_response(listed)

    async def find(self, request: web.Request) -> web.StreamResponse:
        record = self._accounts.records.get(request.query["key"])
        return web.json_response({"status": "not_found"} if record is None else _tell(record))

    async def pending(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(len(self._later))

    async def outage(self, request: web.Request) -> web.StreamResponse:
        self._out_until = time.monotonic() + float((await request.json())["seconds"])
        return web.json_response({})

    async def _read(self, request: web.Request, operation: str) -> tuple[Body, Behaviour]:
        body = await request.json()
        key = body["key"]
        self._attempts[operation, key] += 1
        attempt = self._attempts[operation, key]
        mix = self._mixes["charge" if operation == "charge" else "answer"]
        # A charge sent again meets what the first met: one key, one fate.
        behaviour = behaviour_of(self._seed, operation, key, 1 if operation == "charge" else attempt, mix)
        facts = {"amount_minor": body["amount_minor"], "attempt": attempt, "behaviour": behaviour.name}
        self._ledger.write("request", operation=operation, key=key, **facts)
        return body, behaviour

    def _start_later(self, key: str, amount: tuple[int, str], delay_seconds: float) -> None:
        async def later() -> None:
            await asyncio.sleep(delay_seconds)
            await self._accounts.charge(key, *amount)

        task = asyncio.create_task(later())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    @web.middleware
    async def _unless_out(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if time.monotonic() < self._out_until and request.path != "/outage":
            return _reset(request)
        return await handler(request)


def _tell(record: Record) -> Body:
    told: Body = {"status": record.state, "amount_minor": record.amount_minor, "currency": record.currency}
    if record.reference:
        told["reference"] = record.reference
    if record.code:
        told["code"] = record.code
    return told


async def _answer(
    request: web.Request, behaviour: Behaviour, decide: Callable[[], Awaitable[Body]]
) -> web.StreamResponse:
    match behaviour.name:
        case "drop_before":
            return _reset(request)
        case "error_before":
            return web.Response(status=500, text="try again")
        case "throttled":
            return web.json_response({"status": "throttled"}, status=429)
        case "race":
            await asyncio.sleep(behaviour.delay_seconds)
    return await _answer_decided(request, behaviour, await decide())


async def _answer_decided(request: web.Request, behaviour: Behaviour, told: Body) -> web.StreamResponse:
    match behaviour.name:
        case "drop_after":
            return _reset(request)
        case "error_after":
            return web.Response(status=500, text="try again")
        case "garbage":
            return web.Response(text="<html>down for maintenance</html>", content_type="text/html")
        case "truncated":
            return await _break_off(request, json.dumps(told).encode())
        case "wrong_amount":
            told = told | {"amount_minor": told["amount_minor"] + 1}
        case "slow":
            await asyncio.sleep(behaviour.delay_seconds)
    return web.json_response(told)


def _reset(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _break_off(request: web.Request, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def serve(ledger: Path, seed: int, mixes: Mapping[str, Mapping[str, int]], tell: Callable[[int], None]) -> None:
    """For ever. `mixes`: weights of what happens to a "charge" and to any other request. `tell` gets the port."""
    server = ProcessorServer(Ledger(ledger), seed, mixes)
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    tell(runner.addresses[0][1])
    await asyncio.Event().wait()
