"""Whoever has a receipt and the published keys can verify it offline, with any library, and sees what was changed."""

import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from joserfc import jws as joserfc_jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import KeySet

from payorder.adapters.signing import Ed25519Signer
from payorder.cli import receipt as command
from payorder.domain.receipt import Receipt, canonical
from payorder.workflows.sign_receipt import SignReceipt
from support.doors import Body, Door
from support.orders import Orders
from support.records import CARD, NOON, TOTAL
from support.requests import payment
from support.service import Service, serving
from support.signing_keys import new_signing_key
from support.stack import Stack, environment_without_payorder


async def receipt_of(stack: Stack, orders: Orders) -> Body:
    answer = await stack.rest.call("GetReceipt", {"orderId": await orders.in_state("paid")}, token=stack.token())
    assert "OK" == answer.code
    return answer.body


async def keys_of(door: Door) -> Body:
    answer = await door.call("GetReceiptKeys", {}, token=None)
    assert "OK" == answer.code
    return answer.body


def facts_of(receipt: Body) -> Body:
    return {name: value for name, value in receipt.items() if name != "signature"}


async def test_the_published_keys_are_a_key_set_and_the_same_through_every_door(stack: Stack) -> None:
    sets = [await keys_of(door) for door in (stack.rest, stack.grpc, stack.grpc_through_envoy)]
    assert sets[:1] * 3 == sets
    (key,) = sets[0]["keys"]
    assert {"kty", "crv", "x", "kid", "use", "alg"} == set(key)
    assert ("OKP", "Ed25519", "sig", "EdDSA") == (key["kty"], key["crv"], key["use"], key["alg"])
    answer = await stack.rest.call("GetReceiptKeys", {}, token=None)
    assert ("application/json", "public, max-age=300") == (
        answer.headers["content-type"],
        answer.headers["cache-control"],
    )


@pytest.mark.parametrize("path", ["receipt-keys?x=1", "receipt-keys/", "jwks.json"])
async def test_beside_the_keys_nothing_is_open(stack: Stack, path: str) -> None:
    answer = await stack.rest.send("GET", f"/.well-known/{path}")
    assert answer.http in (400, 401, 404)


async def test_a_receipt_is_verified_by_pyjwt(stack: Stack, orders: Orders) -> None:
    receipt = await receipt_of(stack, orders)
    keys = jwt.PyJWKSet.from_dict(await keys_of(stack.rest))
    key = keys[jwt.get_unverified_header(receipt["signature"])["kid"]]
    payload = jwt.PyJWS().decode(receipt["signature"], key, algorithms=["EdDSA"])
    assert canonical(facts_of(receipt)) == payload


async def test_a_receipt_is_verified_by_joserfc(stack: Stack, orders: Orders) -> None:
    receipt = await receipt_of(stack, orders)
    keys = KeySet.import_key_set(await keys_of(stack.rest))
    # RFC 9864 calls it Ed25519; few libraries know it by that name yet.
    with pytest.warns(SecurityWarning):
        verified = joserfc_jws.deserialize_compact(receipt["signature"], keys, algorithms=["EdDSA"])
    assert facts_of(receipt) == json.loads(verified.payload)


async def test_a_receipt_read_again_is_the_same_to_the_last_bit(stack: Stack, orders: Orders) -> None:
    order = await orders.in_state("paid")
    texts = [(await stack.rest.call("GetReceipt", {"orderId": order}, token=stack.token())).text for _ in range(3)]
    assert texts[:1] * 3 == texts


# The command


def verify(file: Path, keys: Path) -> subprocess.CompletedProcess[str]:
    """Without any setting: there is nothing to ask."""
    return subprocess.run(
        [sys.executable, "-m", "payorder", "receipt", "verify", str(file), "--keys", str(keys)],
        env=environment_without_payorder(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def test_the_command_takes_a_receipt_and_its_signature_alone(
    stack: Stack, orders: Orders, tmp_path: Path
) -> None:
    request = {"orderId": await orders.in_state("paid")}
    receipt = await stack.rest.call("GetReceipt", request, token=stack.token())
    keys, whole, bare = tmp_path / "keys.json", tmp_path / "receipt.json", tmp_path / "receipt.jws"
    keys.write_text((await stack.rest.call("GetReceiptKeys", {}, token=None)).text)
    whole.write_text(receipt.text)
    bare.write_text(receipt.body["signature"] + "\n")
    for file in (whole, bare):
        ended = await asyncio.to_thread(verify, file, keys)
        assert (0, "") == (ended.returncode, ended.stderr)
        assert "the signature is right; the receipt says:" == ended.stdout.splitlines()[0]
        assert "  amount: 49.99" in ended.stdout.splitlines()
        assert "  seller: Rex & Friends (demo)\n    123 Fake Street\n" in ended.stdout
    whole.write_text(receipt.text.replace('"49.99"', '"4.99"'))
    ended = await asyncio.to_thread(verify, whole, keys)
    assert (1, "", "payorder: the receipt does not say what was signed\n") == (
        ended.returncode,
        ended.stdout,
        ended.stderr,
    )


@pytest.fixture
async def files(stack: Stack, orders: Orders, tmp_path: Path) -> tuple[Path, Path]:
    """A receipt and the keys."""
    receipt, keys = tmp_path / "receipt.json", tmp_path / "keys.json"
    receipt.write_text(json.dumps(await receipt_of(stack, orders)))
    keys.write_text(json.dumps(await keys_of(stack.rest)))
    return receipt, keys


def is_verified(file: Path, keys: Path) -> bool:
    try:
        command.verify(file, keys)
    except SystemExit:
        return False
    return True


@pytest.mark.parametrize("form", ["receipt", "signature"])
def test_no_byte_can_be_changed_and_none_left_out(files: tuple[Path, Path], form: str) -> None:
    file, keys = files
    good = file.read_bytes() if form == "receipt" else json.loads(file.read_text())["signature"].encode()
    file.write_bytes(good)
    assert is_verified(file, keys)
    for place in range(len(good)):
        for changed in (good[place] ^ 1, good[place] ^ 0x80, None):
            # A space of JSON says nothing, whether it is there or not.
            if changed is None and good[place : place + 1] == b" " and good[place - 1 : place] in b",:":
                continue
            middle = b"" if changed is None else bytes([changed])
            file.write_bytes(good[:place] + middle + good[place + 1 :])
            assert not is_verified(file, keys), (place, changed)


FORGERIES = {
    "a member more": lambda receipt: receipt | {"note": "paid twice"},
    "a member less": lambda receipt: {name: value for name, value in receipt.items() if name != "refundedAmount"},
    "no signature": facts_of,
    "a value that is no text": lambda receipt: receipt | {"amount": 49.99},
    "a signature that is none": lambda receipt: receipt | {"signature": None},
    # The last character has four bits that say nothing.
    "the same bytes spelt otherwise": lambda receipt: (
        receipt | {"signature": receipt["signature"][:-1] + chr(ord(receipt["signature"][-1]) + 1)}
    ),
    "a character that decoders pass over": lambda receipt: receipt | {"signature": receipt["signature"] + "!"},
    "padding": lambda receipt: receipt | {"signature": receipt["signature"] + "="},
    "a line in the signature": lambda receipt: receipt | {"signature": receipt["signature"] + "\n"},
    "no algorithm": lambda receipt: receipt | {"signature": with_header(receipt["signature"], alg="none")},
    "a symmetric algorithm": lambda receipt: receipt | {"signature": with_header(receipt["signature"], alg="HS256")},
    "another key": lambda receipt: receipt | {"signature": with_header(receipt["signature"], kid="0" * 16)},
    "no key": lambda receipt: receipt | {"signature": with_header(receipt["signature"], kid=None)},
}


def with_header(signature: str, **changes: object) -> str:
    header, rest = signature.split(".", 1)
    read = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    written = base64.urlsafe_b64encode(json.dumps(read | changes).encode()).decode().rstrip("=")
    return f"{written}.{rest}"


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_was_not_signed_so_is_found_out(files: tuple[Path, Path], forgery: str) -> None:
    file, keys = files
    file.write_text(json.dumps(FORGERIES[forgery](json.loads(file.read_text()))))
    assert not is_verified(file, keys)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "a.b.c", "..", '{"signature":"a","signature":"b"}', "[" * 100_000, "\0"]
)
def test_what_is_no_receipt_is_told(files: tuple[Path, Path], text: str) -> None:
    file, keys = files
    file.write_text(text)
    assert not is_verified(file, keys)


def test_a_name_that_stands_twice_is_found_out(files: tuple[Path, Path]) -> None:
    """Readers differ in which of the two they take."""
    file, keys = files
    file.write_text(file.read_text().replace("{", '{"amount":"1.00",', 1))
    assert not is_verified(file, keys)


@pytest.mark.parametrize("changes", [{"typ": "JWT"}, {"typ": "RECEIPT+JWS"}, {"typ": None}])
def test_what_the_same_key_has_signed_as_something_else_is_no_receipt(tmp_path: Path, changes: Body) -> None:
    signer = Ed25519Signer.generate()
    receipt = Receipt("receipt", "order", "payment", TOTAL, 0, CARD, None, NOON)
    signature = SignReceipt(signer=signer, public_url="", seller=None)(receipt).signature
    text = with_header(signature, **changes).rpartition(".")[0]
    signed = f"{text}.{base64.urlsafe_b64encode(signer.sign(text.encode())).decode().rstrip('=')}"
    x = base64.urlsafe_b64encode(signer.public_key.raw).decode().rstrip("=")
    file, keys = tmp_path / "receipt.jws", tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": signer.key_id}]}))
    file.write_text(signature)
    assert is_verified(file, keys)
    file.write_text(signed)
    with pytest.raises(SystemExit, match="payorder: what was signed is no receipt"):
        command.verify(file, keys)


def test_a_receipt_of_another_service_is_not_verified(files: tuple[Path, Path]) -> None:
    file, keys = files
    (key,) = json.loads(keys.read_text())["keys"]
    other = base64.urlsafe_b64encode(bytes(31) + b"\x01").decode().rstrip("=")
    for others in ([], [key | {"x": other}], [key | {"kty": "EC"}], "none"):
        keys.write_text(json.dumps({"keys": others}))
        assert not is_verified(file, keys)


# Another key


async def paid_receipt(service: Service) -> tuple[str, Body]:
    order = await service.new_order()
    paid = await service.grpc.call("PayOrder", {"orderId": order, "payment": payment()}, token=service.token())
    assert "OK" == paid.code
    return order, await service.read("GetReceipt", orderId=order)


async def test_a_receipt_of_before_is_verified_after_the_key_has_changed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'payorder.db'}"
    published, file = tmp_path / "published.json", tmp_path / "receipt.json"
    first = {"receipt_signing_key": str(new_signing_key(tmp_path / "first.pem"))}
    async with serving(tmp_path, url, **first) as service:
        order, before = await paid_receipt(service)
        published.write_text(json.dumps(await keys_of(service.grpc)))
    second = {
        "receipt_signing_key": str(new_signing_key(tmp_path / "second.pem")),
        "receipt_keys_previous": str(published),
    }
    async with serving(tmp_path, url, migrates=False, **second) as service:
        after = await service.read("GetReceipt", orderId=order)
        keys = await keys_of(service.grpc)
    assert (facts_of(before), False) == (facts_of(after), before["signature"] == after["signature"])
    published.write_text(json.dumps(keys))
    assert 2 == len(keys["keys"])
    for receipt in (before, after):
        file.write_text(json.dumps(receipt))
        assert is_verified(file, published)
