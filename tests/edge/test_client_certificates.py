"""mTLS at Envoy, and tokens that are good with one certificate alone (RFC 8705), with real certificates."""

import hashlib
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import grpc
import pytest

from payorder.local.envoy import Tls
from support.certificates import Authority, Certificate
from support.doors import GrpcDoor, RestDoor
from support.issuers import JWKS, HttpIssuer, new_keys, running_issuer
from support.requests import ORDER
from support.service import serving
from support.stack import envoy_settings, started_envoy

MINE, ANOTHERS = "mine", "anothers"


@dataclass(frozen=True, slots=True)
class Secured:
    """An Envoy that wants certificates of `authority`, before a service that believes it about them."""

    address: str
    authority: Authority
    issuer: HttpIssuer
    direct: GrpcDoor

    def client_context(self, certificate: Certificate | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority.path)
        if certificate is not None:
            context.load_cert_chain(certificate.chain, certificate.key)
        return context

    def channel(self, certificate: Certificate) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(
            self.authority.path.read_bytes(), certificate.key.read_bytes(), certificate.chain.read_bytes()
        )
        return grpc.aio.secure_channel(self.address, credentials)

    @asynccontextmanager
    async def doors(self, certificate: Certificate) -> AsyncIterator[tuple[RestDoor, GrpcDoor]]:
        connector = aiohttp.TCPConnector(ssl=self.client_context(certificate))
        async with aiohttp.ClientSession(connector=connector) as session, self.channel(certificate) as channel:
            rest = RestDoor(session, self.address)
            rest.url = f"https://{self.address}"
            yield rest, GrpcDoor(channel)

    async def is_serving(self, certificate: Certificate) -> bool:
        async with self.doors(certificate) as (rest, _):
            try:
                return (await rest.call("ListOrders", {}, token=self.issuer.token())).code == "OK"
            except aiohttp.ClientError:
                return False


@pytest.fixture(scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority, url = Authority(folder), f"sqlite:///{folder / 'payorder.db'}"
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(running_issuer(new_keys()))
        service = await stack.enter_async_context(
            serving(folder, url, issuer=issuer.issuer, jwks=None, forwarded_client_cert=True)
        )
        server, probe = authority.certificate("server"), authority.certificate("probe")
        tls = Tls(server.chain, server.key, authority.path)
        settings = envoy_settings(service.address, folder, {issuer.issuer: issuer.issuer + JWKS}, tls=tls)
        running = Secured(f"127.0.0.1:{settings.listen_port}", authority, issuer, service.grpc)
        await stack.enter_async_context(started_envoy(settings, folder, lambda: running.is_serving(probe)))
        yield running


def certificate(secured: Secured, name: str) -> Certificate:
    return secured.authority.certificate(name)


async def codes(doors: Sequence[RestDoor | GrpcDoor], token: str) -> list[str]:
    return [(await door.call("CreateOrder", ORDER, token=token)).code for door in doors]


async def test_a_token_is_good_with_the_certificate_it_is_bound_to_and_with_no_other(secured: Secured) -> None:
    mine, anothers = certificate(secured, MINE), certificate(secured, ANOTHERS)
    bound = secured.issuer.token(cnf={"x5t#S256": mine.thumbprint})
    # Twice, because the service remembers what it has verified.
    for _ in range(2):
        async with secured.doors(mine) as doors:
            assert ["OK", "OK"] == await codes(doors, bound)
            unknown_bond = secured.issuer.token(cnf={"x5t#S256": mine.thumbprint, "jkt": mine.thumbprint})
            assert ["UNAUTHENTICATED", "UNAUTHENTICATED"] == await codes(doors, unknown_bond)
        async with secured.doors(anothers) as doors:
            assert ["UNAUTHENTICATED", "UNAUTHENTICATED"] == await codes(doors, bound)
            assert ["OK", "OK"] == await codes(doors, secured.issuer.token())
    assert "UNAUTHENTICATED" == (await secured.direct.call("CreateOrder", ORDER, token=bound)).code


async def test_nobody_can_claim_a_certificate_in_a_header(secured: Secured) -> None:
    mine, anothers = certificate(secured, MINE), certificate(secured, ANOTHERS)
    bound = secured.issuer.token(cnf={"x5t#S256": mine.thumbprint})
    claimed = forwarded(mine)
    async with secured.doors(anothers) as (rest, native):
        headers = {"x-forwarded-client-cert": claimed}
        assert 401 == (await rest.send("GET", "/orders", token=bound, headers=headers)).http
        assert "UNAUTHENTICATED" == await code_of(native, bound, [claimed])


async def test_what_is_forwarded_is_read_as_envoy_writes_it_and_in_no_other_way(secured: Secured) -> None:
    """Straight to the service, which takes whoever reaches it for Envoy."""
    mine = certificate(secured, MINE)
    bound, hash_of_mine = secured.issuer.token(cnf={"x5t#S256": mine.thumbprint}), forwarded(mine)
    good = [[hash_of_mine], [f"By=urn:server;{hash_of_mine}"]]
    bad = [
        [],
        [""],
        [hash_of_mine, hash_of_mine],
        [f"{hash_of_mine},{hash_of_mine}"],
        [f"Hash={'0' * 64},{hash_of_mine}"],
        [f'Subject="CN=x";{hash_of_mine}'],
        [f"{hash_of_mine};"],
        [mine.thumbprint],
        [hash_of_mine.upper()],
        [hash_of_mine[:-1]],
    ]
    assert ["OK"] * len(good) == [await code_of(secured.direct, bound, values) for values in good]
    assert ["UNAUTHENTICATED"] * len(bad) == [await code_of(secured.direct, bound, values) for values in bad]


async def code_of(door: GrpcDoor, token: str, forwarded_certificates: Sequence[str]) -> str:
    metadata = [("authorization", f"Bearer {token}")]
    metadata += [("x-forwarded-client-cert", value) for value in forwarded_certificates]
    try:
        await door.channel.unary_unary("/payments.v1.OrderService/ListOrders")(b"", metadata=metadata, timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


def forwarded(shown: Certificate) -> str:
    """As Envoy would write it."""
    return f"Hash={hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown.chain.read_text())).hexdigest()}"


async def test_without_a_certificate_of_the_authority_nobody_comes_in(
    secured: Secured, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Authority(tmp_path_factory.mktemp("stranger")).certificate("stranger")
    for shown in (None, stranger):
        connector = aiohttp.TCPConnector(ssl=secured.client_context(shown))
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await session.get(f"https://{secured.address}/orders")
