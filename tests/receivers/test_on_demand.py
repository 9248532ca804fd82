"""The HTTP client is imported by the first who needs it, and by nobody before."""

import asyncio
import subprocess
import sys
from dataclasses import replace

import pytest

from payorder.adapters.receivers.on_demand import ReceiversOnDemand
from payorder.adapters.receivers.rules import Rules
from payorder.ports.receivers import Answer, UrlRefused
from support.hostile import OK, answering, receiver
from support.receivers import BODY, HEADERS, LOOPBACK, networks

RULES = Rules(allows_http=True, ports=None, networks=networks(*LOOPBACK))


def test_the_http_client_is_not_imported_before_it_is_needed():
    show = "import sys; import payorder.adapters.receivers.on_demand; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, timeout=60, check=True)
    assert "False" == done.stdout.strip()


async def test_several_who_need_it_at_once_get_the_same():
    adapter = ReceiversOnDemand(RULES, of_services=RULES)
    async with receiver(answering(OK)) as here:
        url = f"http://127.0.0.1:{here.port}/hook"
        vetted, *answers = await asyncio.gather(
            adapter.vet(url, by_service=True),
            *(adapter.send(url, HEADERS, BODY, by_service=True) for _ in range(3)),
            return_exceptions=True,
        )
        assert Answer(200) == await adapter.send(url, HEADERS, BODY, by_service=True)
        assert vetted is None
        assert [Answer(200)] * 3 == answers
        # A connection was there to be used again.
        assert here.connections <= 3
        await adapter.close()


@pytest.mark.parametrize("by_service", [False, True])
async def test_what_is_refused_is_refused(*, by_service: bool):
    adapter = ReceiversOnDemand(RULES, of_services=RULES)
    with pytest.raises(UrlRefused):
        await adapter.vet("http://10.0.0.1/", by_service=by_service)
    assert Answer(None) == await adapter.send("http://10.0.0.1/", HEADERS, BODY, by_service=by_service)
    await adapter.close()


async def test_what_is_open_to_services_is_closed_to_everybody_else_also_over_a_connection_that_is_there():
    # Names of inside are looked up for everybody, so that nothing but the connection's own kind keeps them apart.
    elsewhere = replace(RULES, networks=networks("10.0.0.0/8"))
    adapter = ReceiversOnDemand(elsewhere, of_services=replace(RULES, networks=networks(*LOOPBACK, "::1/128")))
    async with receiver(answering(OK)) as here:
        for url in (f"http://localhost:{here.port}/", f"http://127.0.0.1:{here.port}/"):
            await adapter.vet(url, by_service=True)
            assert Answer(200) == await adapter.send(url, HEADERS, BODY, by_service=True)
            with pytest.raises(UrlRefused):
                await adapter.vet(url, by_service=False)
            assert Answer(None) == await adapter.send(url, HEADERS, BODY, by_service=False)
        assert 2 == len(here.requests)
        await adapter.close()


async def test_what_was_never_needed_is_closed_too():
    await ReceiversOnDemand(RULES, of_services=RULES).close()
