"""Which addresses may be connected to: those of the internet, and what an operator has opened.

No `is_global`: it calls global what leads inside, as 6to4 around a loopback address does, and all of multicast.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA's registry of special-purpose addresses (RFC 6890), multicast, class E, and the one address of the public
# internet at which a cloud serves its metadata.
_INSIDE_IPV4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "168.63.129.16/32",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)

# All that has ever been given out to hosts (RFC 4291), and what of it is special; 2001::/23 has Teredo in it, 2002::/16
# is 6to4. Loopback, link-local, unique local, multicast and the forms ::a.b.c.d and ::ffff:a.b.c.d are outside.
_INTERNET_IPV6 = IPv6Network("2000::/3")
_INSIDE_IPV6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")))

# NAT64 (RFC 6052): how a host without IPv4 reaches all that has nothing else.
_NAT64 = IPv6Network("64:ff9b::/96")
# ISATAP (RFC 5214): bits 64 to 95 are 0000:5efe or 0200:5efe, in any network.
_ISATAP, _ISATAP_MASK = 0x00005EFE, 0xFDFFFFFF


def is_acceptable(address: Address, opened: Iterable[Network]) -> bool:
    """Public, or in one of the networks `opened`. An IPv6 address that has an IPv4 address in it must be so twice."""
    if any(address in network for network in opened):
        return True
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _INSIDE_IPV4)
    if address in _NAT64:
        return is_acceptable(_last_32_bits(address), opened)
    if (int(address) >> 32) & _ISATAP_MASK == _ISATAP and not is_acceptable(_last_32_bits(address), opened):
        return False
    return address in _INTERNET_IPV6 and not any(address in network for network in _INSIDE_IPV6)


def _last_32_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)
