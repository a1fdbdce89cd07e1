"""Decide which IP addresses webhooks may be sent to: public and explicitly allowed ones.

The lists are IANA's special-purpose registries. They are copied here because the result of
`ipaddress.is_global` differs between patch releases of one Python version, and because it does not
look at an IPv4 address embedded in an IPv6 one.
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
    "100.64.0.0/10",  # carrier-grade NAT; services of some clouds
    "127.0.0.0/8",
    "169.254.0.0/16",  # link-local: the metadata service of clouds, the Lambda runtime
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
# The only block that is assigned; the rest is reserved, local, link-local or multicast.
_PUBLIC_6 = "2000::/3"
_NOT_PUBLIC_6 = (
    "2001::/23",  # protocol assignments such as Teredo
    "2001:db8::/32",
    "2002::/16",  # 6to4, which embeds another address
    "3fff::/20",
)
_NAT64 = "64:ff9b::/96"


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse networks such as `10.0.0.0/8`.

    Raises:
        ValueError: a text is not a network.
    """
    return tuple(ip_network(text) for text in texts)


def parse_ip(host: str) -> Address | None:
    """Return the address if `host` is one, None if it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_allowed(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Whether a connection to this address may be made."""
    return is_within(address, allowed) or is_public(address)


def is_within(address: Address, allowed: Sequence[Network]) -> bool:
    target = _unwrap(address)
    return any(target in network for network in allowed if network.version == target.version)


def is_public(address: Address) -> bool:
    """Whether it is a host on the public internet.

    An IPv4 address embedded in IPv6 is checked as IPv4.
    """
    target = _unwrap(address)
    if isinstance(target, IPv4Address):
        return not any(target in network for network in _table(_NOT_PUBLIC_4))
    (public,) = _table((_PUBLIC_6,))
    return target in public and target.scope_id is None and not any(target in network for network in _table(_NOT_PUBLIC_6))


def _unwrap(address: Address) -> Address:
    """Return the IPv4 address embedded in a mapped or NAT64 address, else the address itself."""
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
