"""A browser's own EventSource on the events of an order, behind a server of its page that adds the token."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from support.browser import browser, installed
from support.orders import Orders
from support.stack import Stack

PAGE = """<!doctype html><script>
  const seen = [];
  const source = new EventSource("/orders/{order}/events");
  for (const type of ["payment.succeeded", "order.statusChanged", "refund.succeeded"]) {{
    source.addEventListener(type, event => seen.push([event.lastEventId, JSON.parse(event.data).sequence]));
  }}
</script>"""


class PageServer:
    """Cuts the first stream off behind its first event; `asked` has the Last-Event-ID of each."""

    def __init__(self, stack: Stack, order: str) -> None:
        self._stack = stack
        self._order = order
        self.asked: list[str | None] = []

    async def page(self, _request: web.Request) -> web.Response:
        return web.Response(text=PAGE.format(order=self._order), content_type="text/html")

    async def events(self, request: web.Request) -> web.StreamResponse:
        last = request.headers.get("Last-Event-ID")
        self.asked.append(last)
        headers = {"last-event-id": last} if last else {}
        async with self._stack.rest.stream(request.path, token=self._stack.token(), headers=headers) as upstream:
            answer = web.StreamResponse(headers={"content-type": upstream.headers["content-type"]})
            await answer.prepare(request)
            await answer.write(b"retry: 50\n\n")
            async for chunk in upstream.content.iter_any():
                await answer.write(chunk)
                if last is None and b"id: " in chunk:
                    break
        return answer


@asynccontextmanager
async def serving_page(server: PageServer) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_get("/", server.page)
    application.router.add_get("/orders/{order}/events", server.events)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@pytest.mark.skipif(installed() is None, reason="no browser is installed")
@pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
async def test_a_browser_misses_nothing_although_it_is_cut_off(stack: Stack, orders: Orders, tmp_path: Path) -> None:
    order = await orders.in_state("paid")
    server = PageServer(stack, order)
    async with browser(installed() or "", tmp_path) as page, serving_page(server) as url:
        await page.command("Page.navigate", url=url)
        await page.shows("typeof seen !== 'undefined' && seen.length === 2")
        await stack.grpc.call("CancelOrder", {"orderId": order}, token=stack.token())
        await page.shows("seen.length === 4")
        seen = await page.evaluate("JSON.stringify(seen)")
    assert '[["1",1],["2",2],["3",3],["4",4]]' == seen
    assert server.asked[0] is None
    assert server.asked[1] in ("1", "2")
