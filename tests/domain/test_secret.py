"""A secret does not get out by any way that prints, logs, copies or stores."""

import copy
import dataclasses
import io
import json
import logging
import operator
import pickle
import pprint
import string
import traceback
from collections.abc import Callable

import pytest

from payorder.domain.secret import Secret
from payorder.domain.source import Address, BankAccount, Card

NUMBER = "4242424242424242"
CVC = "987"
SECRET = Secret(NUMBER)
CARD = Card("J. Doe", SECRET, Secret(CVC), 12, 2025, Address())
ACCOUNT = BankAccount("J. Doe", SECRET, "000123", None, "individual", "Bank", "gb")


def as_traceback(value: object) -> str:
    return "".join(traceback.format_exception(ValueError(value)))


def as_log(value: object) -> str:
    written = io.StringIO()
    logger = logging.getLogger("test")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(logging.StreamHandler(written))
    logger.debug("%s %r", value, value)
    logger.debug(value)
    logger.debug("named %(source)s", {"source": value})
    return written.getvalue()


WAYS_TO_PRINT: dict[str, Callable[[object], str]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "format": format,
    "format with a width": lambda value: f"{value!s:>40}",
    "f-string": lambda value: f"{value} {value!s} {value!r} {value!a} {value=}",
    "str.format": lambda value: str.format("{0} {0!s} {0!r} {0!a}", value),
    "percent": lambda value: operator.mod("%s %r %a", (value, value, value)),
    "template": lambda value: string.Template("$value").substitute(value=value),
    "in a container": lambda value: f"{[value]} {(value,)} { {'key': value} }",
    "pprint": pprint.pformat,
    "traceback": as_traceback,
    "log": as_log,
    "json with default=str": lambda value: json.dumps({"source": value}, default=str),
    "json with default=repr": lambda value: json.dumps([value], default=repr),
}


@pytest.mark.parametrize("value", [SECRET, CARD, ACCOUNT], ids=["secret", "card", "bank account"])
@pytest.mark.parametrize("way", WAYS_TO_PRINT.values(), ids=WAYS_TO_PRINT.keys())
def test_a_printed_secret_is_stars(way: Callable[[object], str], value: object) -> None:
    printed = way(value)
    assert "***" in printed
    assert NUMBER not in printed
    assert CVC not in printed


@pytest.mark.parametrize("spec", ["", "s", ">40", "20.4", "x", "%Y"])
def test_a_secret_is_stars_in_every_format(spec: str) -> None:
    assert "***" == format(SECRET, spec)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [SECRET, CARD, ACCOUNT], ids=["secret", "card", "bank account"])
def test_a_secret_cannot_be_pickled(value: object, protocol: int) -> None:
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(value, protocol)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_secret_cannot_be_copied(copied: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="pickled"):
        copied(SECRET)


def test_a_secret_has_no_json() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(SECRET)


@pytest.mark.parametrize("convert", [dataclasses.asdict, dataclasses.astuple])
@pytest.mark.parametrize("value", [CARD, ACCOUNT], ids=["card", "bank account"])
def test_a_source_turned_into_plain_values_does_not_show_a_secret(
    value: Card | BankAccount, convert: Callable[[Card | BankAccount], object]
) -> None:
    try:
        plain = repr(convert(value))
    except TypeError:
        return
    assert NUMBER not in plain
    assert CVC not in plain


def test_a_secret_has_no_dict_to_look_into() -> None:
    assert not hasattr(SECRET, "__dict__")


def test_a_secret_cannot_be_changed() -> None:
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        SECRET._value = "other"  # type: ignore[misc]


def test_a_secret_is_revealed_when_asked() -> None:
    assert NUMBER == SECRET.reveal()


def test_two_secrets_are_equal_when_what_they_hide_is() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
