"""The login in a real browser: from the link of a client to the code, and from that to a paid order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import pytest
from aiohttp import web

from support.browser import NAMES, Page, browser, installed
from support.oauth import PASSWORD, OAuthClient, oauth_client
from support.up import Running, documented_order

pytestmark = pytest.mark.skipif(installed() is None, reason=f"there is no browser: none of {', '.join(NAMES)}")


@pytest.fixture(scope="module")
async def page(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    async with browser(installed() or "", tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@asynccontextmanager
async def listening(host: str) -> AsyncIterator[tuple[str, "asyncio.Future[dict[str, str]]"]]:
    """A client's redirect URI, and what will be brought to it."""
    brought: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def callback(request: web.Request) -> web.Response:
        brought.set_result(dict(request.query))
        return web.Response(text="Thank you.")

    application = web.Application()
    application.router.add_get("/callback", callback)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, host, 0).start()
    port = runner.addresses[0][1]
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/callback", brought
    finally:
        await runner.cleanup()


async def open_login(page: Page, client: OAuthClient, redirect_uri: str) -> None:
    query = urlencode(client.asked(redirect_uri=redirect_uri))
    await page.command("Page.navigate", url=f"{client.issuer_url}/authorize?{query}")
    await page.shows("document.querySelector('#username')")


async def sign_in(page: Page, username: str, password: str) -> None:
    await page.write("#username", username)
    await page.write("#password", password)
    await page.click("button[value=allow]")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_somebody_signs_in_with_a_browser_and_pays(running: Running, page: Page, host: str) -> None:
    async with oauth_client(running.issuer_url) as client, listening(host) as (redirect_uri, brought):
        await open_login(page, client, redirect_uri)
        await sign_in(page, "ada", PASSWORD)
        async with asyncio.timeout(30):
            back = await brought
        assert (client.state, running.issuer_url) == (back["state"], back["iss"])
        _, tokens = await client.exchange(back["code"], redirect_uri=redirect_uri)
        paid = await documented_order(running, token=tokens["access_token"])
        assert ("approved", "ada") == (paid["status"], paid["userId"])


async def test_a_wrong_password_is_told_and_the_right_one_still_leads_on(running: Running, page: Page) -> None:
    async with oauth_client(running.issuer_url) as client, listening("127.0.0.1") as (redirect_uri, brought):
        await open_login(page, client, redirect_uri)
        await sign_in(page, "grace", "wrong")
        await page.shows("document.querySelector('[role=alert]')")
        assert "grace" == await page.evaluate("document.querySelector('#username').value")
        await page.write("#password", PASSWORD)
        await page.click("button[value=allow]")
        async with asyncio.timeout(30):
            assert "code" in await brought


async def test_who_cancels_is_back_at_the_client_without_a_code(running: Running, page: Page) -> None:
    async with oauth_client(running.issuer_url) as client, listening("127.0.0.1") as (redirect_uri, brought):
        await open_login(page, client, redirect_uri)
        await page.click("button[value=deny]")
        async with asyncio.timeout(30):
            assert "access_denied" == (await brought)["error"]


async def test_the_link_of_the_first_page_ends_in_a_command_to_paste(running: Running, page: Page) -> None:
    await page.command("Page.navigate", url=running.issuer_url)
    await page.shows("document.querySelector('a[href^=\"/authorize\"]')")
    await page.click('a[href^="/authorize"]')
    await page.shows("document.querySelector('#username')")
    await sign_in(page, "ada", PASSWORD)
    await page.shows("document.querySelector('pre')")
    command = await page.evaluate("document.querySelector('pre').textContent")
    process = await asyncio.create_subprocess_exec("bash", "-euc", command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert b'"refresh_token"' in output


async def test_a_page_needs_nothing_that_its_policy_forbids(running: Running, page: Page) -> None:
    """The style is there, and no rule of it was refused."""
    await page.command("Page.navigate", url=running.issuer_url)
    await page.shows("document.querySelector('h1')")
    assert "grid" == await page.evaluate("getComputedStyle(document.body).display")
