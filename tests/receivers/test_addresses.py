"""Which addresses are of the internet, in every form that an address can be written into another."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from payorder.adapters.receivers.addresses import is_acceptable
from support.receivers import networks

INSIDE = ("127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "100.64.0.1", "0.0.0.0", "224.0.0.1")  # noqa: S104
NAT64 = IPv6Network("64:ff9b::/96")
PUBLIC = ("8.8.8.8", "1.1.1.1", "93.184.215.14")

# RFC 4291 mapped and compatible, RFC 2765, 3056, 4380 (server, and client in its complement), 6052, 8215, 5214.
FORMS = {
    "mapped": lambda inner: 0xFFFF << 32 | inner,
    "compatible": lambda inner: inner,
    "translated": lambda inner: 0xFFFF << 48 | inner,
    "6to4": lambda inner: 0x2002 << 112 | inner << 80,
    "Teredo server": lambda inner: 0x20010000 << 96 | inner << 64,
    "Teredo client": lambda inner: 0x20010000 << 96 | 0x08080808 << 64 | inner ^ 0xFFFFFFFF,
    "NAT64": lambda inner: 0x64FF9B << 96 | inner,
    "local NAT64": lambda inner: 0x64FF9B0001 << 80 | inner,
    "ISATAP": lambda inner: 0x26064700 << 96 | 0x5EFE << 32 | inner,
    "global ISATAP": lambda inner: 0x26064700 << 96 | 0x02005EFE << 32 | inner,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inner", INSIDE)
def test_an_address_inside_stays_inside_in_every_form(form, inner):
    assert not is_acceptable(IPv6Address(FORMS[form](int(IPv4Address(inner)))), ())


@pytest.mark.parametrize("inner", PUBLIC)
def test_a_public_address_is_acceptable_as_it_is_and_by_nat64(inner):
    address = IPv4Address(inner)
    assert is_acceptable(address, ())
    assert is_acceptable(IPv6Address(FORMS["NAT64"](int(address))), ())


@settings(max_examples=500)
@given(st.ip_addresses())
@example(IPv4Address("192.0.0.9"))
@example(IPv6Address("2001:1::1"))
def test_nothing_is_acceptable_that_the_standard_library_calls_private(address):
    # It calls NAT64 reserved, as all that is not yet given out.
    if is_acceptable(address, ()) and address not in NAT64:
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_link_local, address.is_unspecified))


@pytest.mark.parametrize("text", ["127.0.0.1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"])
def test_an_operator_opens_addresses_one_by_one(text):
    address = ip_address(text)
    assert is_acceptable(address, networks(text))
    assert not is_acceptable(address, networks("10.0.0.0/8", "fc00::/16"))


def test_a_network_that_is_open_is_not_open_by_way_of_another_form():
    opened = networks("127.0.0.0/8")
    forms = {form for form, make in FORMS.items() if is_acceptable(IPv6Address(make(0x7F000001)), opened)}
    # By NAT64 and ISATAP one gets nowhere else than to the address in it.
    assert {"NAT64", "ISATAP", "global ISATAP"} == forms
