"""The HTTP client is imported by the first who needs it, and by nobody before."""

import asyncio
import subprocess
import sys

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
    adapter = ReceiversOnDemand(RULES)
    async with receiver(answering(OK)) as here:
        url = f"http://127.0.0.1:{here.port}/hook"
        vetted, *answers = await asyncio.gather(
            adapter.vet(url), *(adapter.send(url, HEADERS, BODY) for _ in range(3)), return_exceptions=True
        )
        assert Answer(200) == await adapter.send(url, HEADERS, BODY)
        assert vetted is None
        assert [Answer(200)] * 3 == answers
        # A connection was there to be used again.
        assert here.connections <= 3
        await adapter.close()


async def test_what_is_refused_is_refused():
    adapter = ReceiversOnDemand(RULES)
    with pytest.raises(UrlRefused):
        await adapter.vet("http://10.0.0.1/")
    assert Answer(None) == await adapter.send("http://10.0.0.1/", HEADERS, BODY)
    await adapter.close()


async def test_what_was_never_needed_is_closed_too():
    await ReceiversOnDemand(RULES).close()
