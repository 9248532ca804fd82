"""Keys of requests that may be repeated."""

import inspect

import pytest

from payorder.domain.errors import IdempotencyKeyReused
from payorder.domain.idempotency import IdempotencyKey


def test_another_fingerprint_is_refused_and_one_of_before_a_change_of_secrets_is_not() -> None:
    key = IdempotencyKey("key", "a" * 64, ("b" * 64,))
    key.refuse_other_request("a" * 64)
    key.refuse_other_request("b" * 64)
    with pytest.raises(IdempotencyKeyReused):
        key.refuse_other_request("c" * 64)


def test_fingerprints_are_compared_in_constant_time() -> None:
    """No clock can show it on a busy machine."""
    assert "hmac.compare_digest(each, fingerprint)" in inspect.getsource(IdempotencyKey.refuse_other_request)
