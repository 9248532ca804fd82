"""`payorder receipt verify`: offline, from two files."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import jwt

from payorder.adapters.signing import NoSigningKey, NotSigned, PublicKey, read_key_set
from payorder.domain.receipt import SIGNATURE_TYPE, canonical


class _NotAReceipt(Exception):
    """What is wrong with the file, in words for the terminal."""


def verify(file: Path, key_set: Path) -> None:
    try:
        members = _verified(file.read_text(encoding="utf-8"), _keys(key_set))
    except NoSigningKey:
        sys.exit("payorder: the keys cannot be read as a key set with Ed25519 keys (RFC 7517)")
    except UnicodeDecodeError:
        sys.exit("payorder: the receipt is not UTF-8")
    except _NotAReceipt as fault:
        sys.exit(f"payorder: {fault}")
    click.echo("the signature is right; the receipt says:")
    for name, value in members.items():
        # Those of a seller that begin a line of their own stand below its name.
        click.echo(f"  {name}: {value}".replace("\n", "\n    "))


def _keys(key_set: Path) -> dict[str, PublicKey]:
    return {key.key_id: key for key in read_key_set(key_set)}


def _verified(text: str, keys: Mapping[str, PublicKey]) -> dict[str, str]:
    """The members of a receipt, which is the JSON of one or its signature alone. Raises _NotAReceipt."""
    told = _members_of(text) if text.lstrip().startswith("{") else None
    payload = _payload_of(told.pop("signature", "") if told else text.removesuffix("\n"), keys)
    members = _members_of(payload.decode())
    if told is not None and canonical(told) != payload:
        raise _NotAReceipt("the receipt does not say what was signed")
    return members


def _payload_of(jws: str, keys: Mapping[str, PublicKey]) -> bytes:
    try:
        header = jwt.get_unverified_header(jws)
        key_id = str(header.get("kid"))
        if key_id not in keys:
            raise _NotAReceipt("the key that signed the receipt is not among the keys")
        payload = keys[key_id].payload_of(jws)
    except (jwt.InvalidTokenError, NotSigned) as error:
        raise _NotAReceipt("the signature is wrong") from error
    if header.get("typ") != SIGNATURE_TYPE:
        raise _NotAReceipt("what was signed is no receipt")
    return payload


def _members_of(text: str) -> dict[str, str]:
    """Of a JSON object of texts, in which no name stands twice. Raises _NotAReceipt."""
    try:
        pairs = json.loads(text, object_pairs_hook=tuple)
        members = dict(pairs)
    except (ValueError, TypeError, RecursionError) as error:
        raise _NotAReceipt("the receipt is not an object of JSON") from error
    if len(members) != len(pairs) or not all(isinstance(value, str) for value in members.values()):
        raise _NotAReceipt("the receipt has a name twice, or a value that is no text")
    return members
