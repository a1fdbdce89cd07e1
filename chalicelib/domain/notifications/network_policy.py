"""Which network addresses may be written to on behalf of others: public ones, and what the configuration allows besides.

The lists are those of IANA's special-purpose registries. They stand here because `ipaddress.is_global` has changed its mind between patch
releases of one Python, and because it takes an address that carries another one inside by its outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC_4 = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",
    "100.64.0.0/10",  # carriers' own, and some clouds' services
    "127.0.0.0/8",
    "169.254.0.0/16",  # link-local: the metadata of clouds, Lambda's own machinery
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
_PUBLIC_6 = "2000::/3"  # all that was ever given out; the rest is reserved, local, link-local or multicast
_NOT_PUBLIC_6 = (
    "2001::/23",  # protocols' own, Teredo among them
    "2001:db8::/32",
    "2002::/16",  # 6to4: another address inside, and nobody's webhooks
    "3fff::/20",
)
_NAT64 = "64:ff9b::/96"


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks as a configuration writes them.

    Raises:
        ValueError: one is none.
    """
    return tuple(ip_network(text) for text in texts)


def parse_ip(host: str) -> Address | None:
    """The address that a host is, None if it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_allowed(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Whether a connection may be made to it."""
    return is_within(address, allowed) or is_public(address)


def is_within(address: Address, allowed: Sequence[Network]) -> bool:
    plain = _inside(address)
    return any(plain in network for network in allowed if network.version == plain.version)


def is_public(address: Address) -> bool:
    """Whether it is one host on the internet, by what it is in the end: an IPv4 address in the clothes of IPv6 is judged as that."""
    plain = _inside(address)
    if isinstance(plain, IPv4Address):
        return not any(plain in network for network in _table(_NOT_PUBLIC_4))
    (public,) = _table((_PUBLIC_6,))
    return plain in public and plain.scope_id is None and not any(plain in network for network in _table(_NOT_PUBLIC_6))


def _inside(address: Address) -> Address:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        (nat64,) = _table((_NAT64,))
        if address in nat64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


@cache
def _table(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return networks(texts)
