"""Which URLs may be sent to. What is not written as it should be is refused, never repaired: nobody reads it twice."""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from yarl import URL

from payorder.adapters.receivers.addresses import Address, is_acceptable
from payorder.adapters.receivers.rules import Rules
from payorder.ports.receivers import UrlRefused

_LENGTH_MAX = 2048
_NAME_LENGTH_MAX = 253

# RFC 3986 without user information and fragment, in lower case where case means nothing. An IPv6 address with an IPv4
# address written into it does not fit.
_CHARACTER = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})"
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?:\[(?P<ipv6>[0-9a-f:]+)\]|(?P<ipv4>[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+)|(?P<name>[a-z0-9.-]+))"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    rf"(?:/{_CHARACTER}*(?:\?(?:{_CHARACTER}|\?)+)?)?",
    re.ASCII,
)
_DOT_SEGMENT = re.compile(r"/(?:\.|%2E){1,2}(?:/|$)")
_PORTS = {"http": 80, "https": 443}
# Names of hosts (RFC 1123). The last label begins with a letter, or else it is a number: 127.1, 0x7f000001, 2130706433.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)+(?=[a-z]){_LABEL}|(?=[a-z]){_LABEL}", re.ASCII)
# What a name under one of these leads to is not on the internet (RFC 6761, 6762, 8375, and .internal of ICANN).
_INSIDE = frozenset({"localhost", "local", "internal", "arpa", "localdomain"})


@dataclass(frozen=True, slots=True)
class Target:
    """`name` is None when the URL has an address instead, which is vetted."""

    url: URL
    name: str | None


def target_of(text: str, rules: Rules) -> Target:
    """Raises UrlRefused."""
    match = _URL.fullmatch(text) if len(text) <= _LENGTH_MAX else None
    if match is None:
        raise UrlRefused("not a plain URL")
    if match["scheme"] == "http" and not rules.allows_http:
        raise UrlRefused("not https")
    _refuse_host(match, rules)
    url = _parsed(text)
    if rules.ports is not None and url.port not in rules.ports:
        raise UrlRefused("port not allowed")
    return Target(url, match["name"])


def _refuse_host(match: re.Match[str], rules: Rules) -> None:
    if match["name"] is not None:
        _refuse_name(match["name"], rules)
    elif not is_acceptable(_address_in(match), rules.networks):
        raise UrlRefused("not a public address")


def _address_in(match: re.Match[str]) -> Address:
    try:
        address = IPv4Address(match["ipv4"]) if match["ipv4"] else IPv6Address(match["ipv6"])
    except AddressValueError:
        raise UrlRefused("not a plain address") from None
    if str(address) != (match["ipv4"] or match["ipv6"]):
        raise UrlRefused("not a plain address")
    return address


def _refuse_name(name: str, rules: Rules) -> None:
    """Names of inside have no business here; where networks inside are open, their addresses decide."""
    if len(name) > _NAME_LENGTH_MAX or not _NAME.fullmatch(name):
        raise UrlRefused("not a plain name")
    labels = name.split(".")
    if not rules.networks and (len(labels) == 1 or labels[-1] in _INSIDE):
        raise UrlRefused("not a public name")


def _parsed(text: str) -> URL:
    """As it is written, to the letter: the library would decode and shorten it otherwise."""
    try:
        url = URL(text, encoded=True)
        is_said_anyway = url.explicit_port == _PORTS[url.scheme]
    except ValueError:  # also for a port above 65535
        raise UrlRefused("not a plain URL") from None
    if is_said_anyway or _DOT_SEGMENT.search(url.raw_path):
        raise UrlRefused("not a plain URL")
    return url
