"""Signatures of deliveries: as Standard Webhooks has them, and worth nothing once a byte is another one."""

import base64
import hashlib
import hmac
import inspect
import json
import time
from datetime import UTC, datetime

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook, WebhookVerificationError

from payorder.domain.secret import Secret
from payorder.domain.webhook_signature import (
    NoWebhookSecret,
    SignatureRefused,
    callback_headers,
    key_of,
    secret_of,
    signed_headers,
    verify,
)

CURRENT, PREVIOUS, STRANGE = (secret_of(bytes([number]) * 32) for number in range(3))
ID, BODY = "01a2038d-0381-70ee-9230-907ce2a7f446", b'{"eventType":"payment.succeeded","data":{"a":"\xc3\xa9"}}'
NAMES = ("webhook-id", "webhook-timestamp", "webhook-signature")

# Published with the reference libraries.
VECTOR = {
    "secret": Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    "id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "timestamp": 1614265330,
    "body": b'{"test": 2432232314}',
    "signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


@pytest.fixture
def now() -> int:
    return int(time.time())


def is_accepted_by_the_reference(headers, body, secret=CURRENT) -> bool:
    try:
        Webhook(secret.reveal()).verify(body, headers)
    except (WebhookVerificationError, ValueError):  # the latter when it is not written as a signature is
        return False
    return True


def is_accepted_by_us(headers, body, now, secrets=(CURRENT,)) -> bool:
    try:
        verify(headers, body, secrets, now=now)
    except SignatureRefused:
        return False
    return True


def with_another_byte(data: bytes):
    for place in range(len(data)):
        yield data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_the_published_vector_is_signed_as_it_is_published():
    headers = signed_headers(VECTOR["id"], VECTOR["timestamp"], VECTOR["body"], [VECTOR["secret"]])
    assert VECTOR["signature"] == headers["webhook-signature"]
    at = datetime.fromtimestamp(VECTOR["timestamp"], UTC)
    reference = Webhook(VECTOR["secret"].reveal()).sign(VECTOR["id"], at, VECTOR["body"].decode())
    assert VECTOR["signature"] == reference


def test_the_reference_accepts_what_is_signed_here(now):
    headers = signed_headers(ID, now, BODY, [CURRENT])
    assert json.loads(BODY) == Webhook(CURRENT.reveal()).verify(BODY, headers)


def test_what_the_reference_signs_is_accepted_here(now):
    signature = Webhook(CURRENT.reveal()).sign(ID, datetime.fromtimestamp(now, UTC), BODY.decode())
    assert is_accepted_by_us(dict(zip(NAMES, (ID, str(now), signature), strict=True)), BODY, now)


def test_no_byte_of_the_body_may_be_another_one(now):
    headers = signed_headers(ID, now, BODY, [CURRENT])
    for body in (*with_another_byte(BODY), BODY[:-1], BODY + b" ", b""):
        assert not is_accepted_by_us(headers, body, now)
        assert not is_accepted_by_the_reference(headers, body)


@pytest.mark.parametrize("name", NAMES)
def test_no_byte_of_a_header_may_be_another_one(now, name):
    headers = signed_headers(ID, now, BODY, [CURRENT])
    value = headers[name]
    for other in map(bytes.decode, with_another_byte(value.encode())):
        assert not is_accepted_by_us(headers | {name: other}, BODY, now)
        # The last letter of base64 has bits that mean nothing; the reference does not look at them, and we do.
        if name != "webhook-signature" or other[:-2] != value[:-2]:
            assert not is_accepted_by_the_reference(headers | {name: other}, BODY)
    for other in (value[:-1], value[1:], value + "0", ""):
        assert not is_accepted_by_us(headers | {name: other}, BODY, now)


def test_signatures_are_compared_in_constant_time():
    """No clock can show it on a busy machine."""
    assert "hmac.compare_digest(one, other.encode())" in inspect.getsource(verify)


@pytest.mark.parametrize("name", NAMES)
def test_no_header_may_be_missing(now, name):
    headers = signed_headers(ID, now, BODY, [CURRENT])
    del headers[name]
    assert not is_accepted_by_us(headers, BODY, now)


def test_another_secret_accepts_nothing(now):
    headers = signed_headers(ID, now, BODY, [CURRENT])
    assert not is_accepted_by_us(headers, BODY, now, [STRANGE])
    assert not is_accepted_by_us(headers, BODY, now, [])
    assert not is_accepted_by_the_reference(headers, BODY, STRANGE)


def test_during_a_rotation_both_secrets_sign_and_the_documented_header_is_of_the_current_one(now):
    headers = signed_headers(ID, now, BODY, [CURRENT, PREVIOUS])
    for secret in (CURRENT, PREVIOUS):
        assert is_accepted_by_us(headers, BODY, now, [secret])
        assert is_accepted_by_the_reference(headers, BODY, secret)
    assert not is_accepted_by_us(headers, BODY, now, [STRANGE])
    alone = signed_headers(ID, now, BODY, [CURRENT])
    assert alone["x-webhook-signature"] == headers["x-webhook-signature"]


def test_the_documented_header_is_hexadecimal_of_the_same_text(now):
    text = f"{ID}.{now}.".encode() + BODY
    expected = hmac.new(bytes(32), text, hashlib.sha256).hexdigest()
    assert f"sha256={expected}" == signed_headers(ID, now, BODY, [CURRENT])["x-webhook-signature"]


@pytest.mark.parametrize(
    ("seconds", "is_accepted"), [(-301, False), (-299, True), (0, True), (299, True), (301, False)]
)
def test_a_delivery_is_accepted_for_five_minutes(now, seconds, is_accepted):
    headers = signed_headers(ID, now + seconds, BODY, [CURRENT])
    assert is_accepted == is_accepted_by_us(headers, BODY, now)


@pytest.mark.parametrize("timestamp", ["", "now", "-1", "1e9", "nan", "inf", "1_0", "\u0661", "9" * 5000, " 1", "1.0"])
def test_a_timestamp_that_is_no_number_is_refused(now, timestamp):
    text = f"{ID}.{timestamp}.".encode() + BODY
    signature = "v1," + base64.b64encode(hmac.digest(bytes(32), text, "sha256")).decode()
    headers = dict(zip(NAMES, (ID, timestamp, signature), strict=True))
    assert not is_accepted_by_us(headers, BODY, now)


@pytest.mark.parametrize("signature", ["v1", "v1,", "v1,\xe9", "v2,{}", "V1,{}", "v1a,{}", "{}", "v1,{},", ",v1,{}"])
def test_a_signature_counts_only_as_it_is_written(now, signature):
    headers = signed_headers(ID, now, BODY, [CURRENT])
    plain = headers["webhook-signature"].removeprefix("v1,")
    assert not is_accepted_by_us(headers | {"webhook-signature": signature.format(plain)}, BODY, now)


def test_a_signature_counts_among_others(now):
    headers = signed_headers(ID, now, BODY, [CURRENT])
    several = "v1a,AAAA v1,AAAA v2,x  " + headers["webhook-signature"]
    assert is_accepted_by_us(headers | {"webhook-signature": several}, BODY, now)


def test_a_callback_is_signed_with_the_key_of_the_service(now):
    key = Ed25519PrivateKey.generate()
    headers = callback_headers(ID, now, BODY, key.sign)
    assert set(NAMES) == set(headers)
    version, signature = headers["webhook-signature"].split(",")
    text = f"{ID}.{now}.".encode() + BODY
    assert "v1a" == version
    key.public_key().verify(base64.b64decode(signature), text)
    with pytest.raises(InvalidSignature):
        key.public_key().verify(base64.b64decode(signature), text + b" ")


@pytest.mark.parametrize("length", [24, 32, 64])
def test_a_secret_is_a_key_in_base64(length):
    key = bytes(range(length))
    assert "whsec_" + base64.b64encode(key).decode() == secret_of(key).reveal()
    assert key == key_of(secret_of(key))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        base64.b64encode(bytes(32)).decode(),
        "whpk_" + base64.b64encode(bytes(32)).decode(),
        "whsec_" + base64.b64encode(bytes(32)).decode().rstrip("="),
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "whsec_" + base64.b64encode(bytes(32)).decode() + "\n",
        "whsec_\xe9",
    ],
)
def test_what_is_no_secret_is_refused_without_repeating_it(text):
    with pytest.raises(NoWebhookSecret) as refusal:
        key_of(Secret(text))
    assert "" == str(refusal.value)
