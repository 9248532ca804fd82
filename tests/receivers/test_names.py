"""Names: all their addresses are vetted, and the vetted ones are connected to. With a real name server."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Never

import pytest

from payorder.adapters.receivers.names import SystemNames
from payorder.ports.receivers import Answer, UrlRefused
from support.hostile import OK, answering, receiver
from support.name_server import Turns, name_server
from support.receivers import BODY, HEADERS, PATIENT, KnownNames, receivers
from support.stack import free_port

NAME = "receiver.test"
PUBLIC, PUBLIC_IPV6 = "93.184.215.14", "2606:4700:4700::1111"

REFUSED = {
    "private": ["10.0.0.1"],
    "this machine": ["127.0.0.1"],
    "nowhere": ["0.0.0.0"],  # noqa: S104
    "metadata": ["169.254.169.254"],
    "one public and one private": [PUBLIC, "10.0.0.1"],
    "one private and one public": ["10.0.0.1", PUBLIC],
    "public, and this machine by IPv6": [PUBLIC, "::1"],
    "private, and public by IPv6": ["192.168.1.1", PUBLIC_IPV6],
    "this machine, mapped into IPv6": ["::ffff:127.0.0.1"],
    "this machine, by NAT64": ["64:ff9b::7f00:1"],
    "thirty public and one private": [*(f"93.184.215.{number}" for number in range(30)), "172.16.0.1"],
    "none at all": [],
}


@asynccontextmanager
async def connected(zone: dict[str, Turns], *, opened=()):
    """The adapter, asking that name server."""
    async with name_server(zone) as server:
        names = SystemNames([f"127.0.0.1:{server.port}"])
        async with receivers(opened=opened, names=names) as adapter:
            yield adapter, server


@pytest.mark.parametrize("addresses", [[PUBLIC], [PUBLIC_IPV6], [PUBLIC, "8.8.8.8", PUBLIC_IPV6], ["64:ff9b::808:808"]])
async def test_a_name_is_vetted_when_all_its_addresses_are_public(addresses):
    async with connected({NAME: [addresses]}) as (adapter, _):
        await adapter.vet(f"https://{NAME}/hook")


@pytest.mark.parametrize("addresses", REFUSED.values(), ids=REFUSED)
async def test_a_name_with_one_address_that_is_not_public_is_refused(addresses):
    async with connected({NAME: [addresses]}) as (adapter, _):
        with pytest.raises(UrlRefused, match=r"^not a public name$"):
            await adapter.vet(f"https://{NAME}/hook")
        assert Answer(None) == await adapter.send(f"https://{NAME}/hook", HEADERS, BODY)


class SilentNames(KnownNames):
    async def addresses(self, name: str) -> Never:
        await asyncio.Event().wait()
        raise AssertionError


async def test_whoever_knows_no_address_says_that_there_is_none():
    async with receivers(names=KnownNames()) as adapter:
        with pytest.raises(UrlRefused, match=r"^not a public name$"):
            await adapter.vet(f"https://{NAME}/hook")
        assert Answer(None) == await adapter.send(f"https://{NAME}/hook", HEADERS, BODY)


async def test_whoever_asks_for_a_name_waits_no_longer_than_for_a_connection():
    limits = replace(PATIENT, connect_seconds=0.3)
    async with receivers(limits, names=SilentNames()) as adapter, asyncio.timeout(PATIENT.total_seconds / 2):
        with pytest.raises(UrlRefused, match=r"^not a public name$"):
            await adapter.vet(f"https://{NAME}/hook")
        assert Answer(None) == await adapter.send(f"https://{NAME}/hook", HEADERS, BODY)


async def test_a_name_server_that_says_nothing_holds_up_nobody_else():
    silent = [f"silent-{number}.test" for number in range(100)]
    zone: dict[str, Turns] = {name: [] for name in silent} | {NAME: [["127.0.0.1"]]}
    async with connected(zone, opened=["127.0.0.0/8"]) as (adapter, _), receiver(answering(OK)) as here:
        stuck = [asyncio.create_task(adapter.send(f"http://{name}/", HEADERS, BODY)) for name in silent]
        await asyncio.sleep(0)
        assert Answer(200) == await adapter.send(f"http://{NAME}:{here.port}/", HEADERS, BODY)
        assert not any(task.done() for task in stuck)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def test_a_name_is_not_looked_for_in_the_domains_of_this_machine(monkeypatch):
    monkeypatch.setenv("LOCALDOMAIN", "inside.test")
    async with connected({f"{NAME}.inside.test": [[PUBLIC]]}) as (adapter, server):
        with pytest.raises(UrlRefused):
            await adapter.vet(f"https://{NAME}/")
        assert {NAME} == set(server.asked)


async def test_a_name_that_was_public_when_vetted_leads_nowhere_when_it_is_not_any_more():
    """DNS rebinding, between the registration and the delivery."""
    async with (
        receiver(answering(OK)) as inside,
        connected({NAME: [[PUBLIC], ["127.0.0.1"]]}) as (adapter, server),
    ):
        url = f"http://{NAME}:{inside.port}/hook"
        await adapter.vet(url)
        assert Answer(None) == await adapter.send(url, HEADERS, BODY)
        assert 2 == server.asked[NAME]
    assert 0 == inside.connections


async def test_the_vetted_address_is_the_one_that_is_connected_to():
    """DNS rebinding, between the check of a delivery and its connection: there is no second question."""
    async with (
        receiver(answering(OK), host="127.0.0.2", port=free_port()) as here,
        receiver(answering(OK), host="127.0.0.1", port=here.port) as inside,
        connected({NAME: [["127.0.0.2"], ["127.0.0.1"]]}, opened=["127.0.0.2/32"]) as (adapter, server),
    ):
        url = f"http://{NAME}:{here.port}/hook"
        assert Answer(200) == await adapter.send(url, HEADERS, BODY)
        assert 1 == server.asked[NAME]
        # Nor is there one as long as the connection lasts.
        assert Answer(200) == await adapter.send(url, HEADERS, BODY)
        assert 1 == server.asked[NAME]
    assert (1, 2) == (here.connections, len(here.requests))
    assert 0 == inside.connections


async def test_every_connection_asks_for_the_name_anew():
    """DNS rebinding, between one delivery and the next."""
    closing = OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    async with (
        receiver(answering(closing), host="127.0.0.2", port=free_port()) as here,
        receiver(answering(OK), host="127.0.0.1", port=here.port) as inside,
        connected({NAME: [["127.0.0.2"], ["127.0.0.1"]]}, opened=["127.0.0.2/32"]) as (adapter, server),
    ):
        url = f"http://{NAME}:{here.port}/hook"
        assert Answer(200) == await adapter.send(url, HEADERS, BODY)
        assert Answer(None) == await adapter.send(url, HEADERS, BODY)
        assert 2 == server.asked[NAME]
    assert (1, 0) == (len(here.requests), inside.connections)


async def test_an_address_that_is_not_open_closes_the_others_of_its_name():
    async with (
        receiver(answering(OK), host="127.0.0.2", port=free_port()) as here,
        receiver(answering(OK), host="127.0.0.1", port=here.port) as inside,
        connected({NAME: [["127.0.0.2", "127.0.0.1"]]}, opened=["127.0.0.2/32"]) as (adapter, _),
    ):
        assert Answer(None) == await adapter.send(f"http://{NAME}:{here.port}/hook", HEADERS, BODY)
    assert (0, 0) == (here.connections, inside.connections)


async def test_a_name_is_sent_to_by_its_next_address_when_one_does_not_answer():
    async with (
        receiver(answering(OK), host="127.0.0.3") as here,
        connected({NAME: [["127.0.0.2", "127.0.0.3"]]}, opened=["127.0.0.0/8"]) as (adapter, _),
    ):
        assert Answer(200) == await adapter.send(f"http://{NAME}:{here.port}/hook", HEADERS, BODY)
