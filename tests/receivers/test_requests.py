"""What a receiver gets to see: the delivery, by TLS and by name, and nothing of this machine."""

import asyncio
import ssl
import warnings
from dataclasses import replace

import pytest

from payorder.adapters.receivers.client import tls_context
from payorder.ports.receivers import Answer
from support.certificates import Authority
from support.hostile import OK, Receiver, answering, hang_at_once, receiver, saying
from support.receivers import BODY, HASTY, HEADERS, PATIENT, KnownNames, receivers

NAME = "receiver.example"
NAMES = KnownNames({NAME: ["127.0.0.1"]})

# How an environment sends everybody elsewhere.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tls(authority, monkeypatch) -> ssl.SSLContext:
    """The service's own, on a machine that trusts that authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    return tls_context()


async def answer_of(here: Receiver, tls: ssl.SSLContext, limits=PATIENT, *, host: str = NAME) -> Answer:
    async with receivers(limits, names=NAMES, tls=tls) as adapter:
        return await adapter.send(f"https://{host}:{here.port}/hook", HEADERS, BODY)


async def test_a_delivery_is_a_post_of_json_and_nothing_more():
    async with receiver(answering(OK)) as here, receivers(names=NAMES) as adapter:
        await adapter.send(f"http://{NAME}:{here.port}/a%40b%41/?c=%2F;d", HEADERS, BODY)
    line, *fields = here.requests[0].decode().removesuffix("\r\n\r\n").split("\r\n")
    assert "POST /a%40b%41/?c=%2F;d HTTP/1.1" == line
    assert {
        "host": f"{NAME}:{here.port}",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "user-agent": "payorder",
        "accept": "*/*",
        "accept-encoding": "identity",
        **HEADERS,
    } == {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}


async def test_no_cookie_is_kept():
    cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with receiver(answering(cookie)) as here, receivers() as adapter:
        for _ in range(2):
            await adapter.send(f"http://127.0.0.1:{here.port}/", HEADERS, BODY)
    assert 2 == len(here.requests)
    assert not any(b"cookie" in request.lower() for request in here.requests)


async def test_no_proxy_and_no_password_of_the_environment_is_used(monkeypatch, tmp_path):
    async with receiver(answering(OK)) as proxy, receiver(answering(OK)) as here:
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine {NAME} login ada password development\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        async with receivers(names=NAMES) as adapter:
            assert Answer(200) == await adapter.send(f"http://{NAME}:{here.port}/", HEADERS, BODY)
    assert 0 == proxy.connections
    assert b"authorization" not in here.requests[0].lower()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_receiver_is_greeted_by_its_name_and_must_have_a_certificate_for_it(authority, tls, version):
    context = authority.certificate("good", dns_names=[NAME]).server_context()
    context.minimum_version = context.maximum_version = version
    greeted = []
    context.sni_callback = lambda connection, name, context: greeted.append(name)
    async with receiver(answering(OK), tls=context) as here:
        assert Answer(200) == await answer_of(here, tls)
    assert [NAME] == greeted
    assert f"host: {NAME}:{here.port}\r\n".encode() in here.requests[0].lower()


async def test_a_receiver_may_have_a_certificate_for_its_address(authority, tls):
    async with receiver(answering(OK), tls=authority.certificate("address").server_context()) as here:
        assert Answer(200) == await answer_of(here, tls, host="127.0.0.1")


@pytest.mark.parametrize("fault", ["of a stranger", "self-signed", "expired", "not yet valid", "for another name"])
async def test_a_certificate_with_a_fault_is_no_answer_and_the_delivery_is_not_told(authority, tls, tmp_path, fault):
    certificate = {
        "of a stranger": lambda: Authority(tmp_path).certificate("stranger", dns_names=[NAME]),
        "self-signed": lambda: Authority(tmp_path).self_signed(dns_names=[NAME]),
        "expired": lambda: authority.certificate("expired", dns_names=[NAME], begins_in_hours=-3, ends_in_hours=-1),
        "not yet valid": lambda: authority.certificate("early", dns_names=[NAME], begins_in_hours=1, ends_in_hours=2),
        "for another name": lambda: authority.certificate("other", dns_names=["other.example", f"a.{NAME}"]),
    }[fault]()
    async with receiver(answering(OK), tls=certificate.server_context()) as here:
        assert Answer(None) == await answer_of(here, tls)
    assert [] == here.requests


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
async def test_tls_that_is_too_old_is_no_answer(authority, tls, version):
    context = authority.certificate("old", dns_names=[NAME]).server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    async with receiver(answering(OK), tls=context) as here:
        assert Answer(None) == await answer_of(here, tls)
    assert [] == here.requests


async def test_tls_that_stalls_ends_with_the_time_for_a_connection(tls):
    limits = replace(PATIENT, connect_seconds=0.3)
    async with receiver(hang_at_once) as here, asyncio.timeout(PATIENT.total_seconds / 2):
        assert Answer(None) == await answer_of(here, tls, limits)
        await here.until(lambda here: here.connections_ended == 1)


@pytest.mark.parametrize("behaviour", [hang_at_once, saying(OK), answering(OK)])
async def test_no_tls_at_all_is_no_answer(tls, behaviour):
    async with receiver(behaviour) as here:
        assert Answer(None) == await answer_of(here, tls, HASTY)
    assert [] == here.requests
