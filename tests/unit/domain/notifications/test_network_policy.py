"""Addresses and webhook URLs that may be contacted. A private address is found in every form."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.notifications.network_policy import is_allowed, is_public, networks
from chalicelib.domain.notifications.webhook_url import parse_webhook_url

NOT_PUBLIC = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001:0:1::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
PRIVATE_4 = ["10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3"]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_non_public_addresses_are_not_allowed(address: str) -> None:
    assert not is_allowed(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(ip_address(address))


@given(st.sampled_from(PRIVATE_4), st.integers(0, 2**32 - 1))
def test_private_ipv4_addresses_are_recognised_in_every_ipv6_form(network: str, number: int) -> None:
    """Mapped, compatible, NAT64, 6to4 and Teredo."""
    inner = ip_network(network)
    address = IPv4Address(int(inner.network_address) | number & int(inner.hostmask))
    forms: list[IPv4Address | IPv6Address] = [
        address,
        IPv6Address(0xFFFF << 32 | int(address)),
        IPv6Address(int(address)),
        IPv6Address(int(IPv6Address("64:ff9b::")) | int(address)),
        IPv6Address(int(IPv6Address("2002::")) | int(address) << 80),
        IPv6Address(int(IPv6Address("2001::")) | (int(address) ^ 0xFFFFFFFF)),
    ]

    assert not any(is_public(form) for form in forms)


@given(st.ip_addresses())
def test_addresses_private_to_python_are_never_public(address: IPv4Address | IPv6Address) -> None:
    inside = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
    local = inside.is_private or inside.is_loopback or inside.is_link_local or inside.is_multicast or inside.is_reserved
    if local and inside not in ip_network("64:ff9b::/96"):
        assert not is_public(address)


def test_allowed_network_permits_only_its_own_addresses() -> None:
    allowed = networks(["127.0.0.0/8", "fd12::/16"])

    assert is_allowed(ip_address("127.0.0.1"), allowed)
    assert is_allowed(ip_address("::ffff:127.0.0.1"), allowed)
    assert is_allowed(ip_address("fd12::1"), allowed)
    assert not is_allowed(ip_address("10.0.0.1"), allowed)
    assert not is_allowed(ip_address("::1"), allowed)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://hooks.example.com/", "https"),
        ("ftp://hooks.example.com/", "https"),
        ("//hooks.example.com/", "https"),
        ("hooks.example.com", "https"),
        ("https://", "name a host"),
        ("https://user:pw@hooks.example.com/", "user name"),
        ("https://hooks.example.com@127.0.0.1/", "user name"),
        ("https://hooks.example.com/#", "fragment"),
        ("https://hooks.example.com/#x", "fragment"),
        ("https://127.0.0.1/", "public address"),
        ("https://[::1]/", "public address"),
        ("https://[::ffff:10.0.0.1]/", "public address"),
        ("https://169.254.169.254/latest/meta-data", "public address"),
        ("https://2130706433/", "name a host"),
        ("https://0x7f.1/", "name a host"),
        ("https://127.1/", "name a host"),
        ("https://0x7f000001/", "name a host"),
        ("https://localhost/", "public host"),
        ("https://hooks..example.com/", "name a host"),
        ("https://hooks.example.com./", "name a host"),
        ("https://-hooks.example.com/", "name a host"),
        ("https://hooks.example.com:25/", "port"),
        ("https://hooks.example.com:99999/", "not a URL"),
        ("https://hooks.example.com:x/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://hooks.example.com\\@127.0.0.1/", "ASCII"),
        ("https://hooks.example.com/ x", "ASCII"),
        ("https://hooks.example.com/\r\nX: y", "ASCII"),
        ("https://höoks.example.com/", "ASCII"),
        ("https://hooks.example.com/" + "x" * 2_048, "2048"),
    ],
)
def test_unsafe_or_malformed_webhook_urls_are_rejected(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_webhook_url(url)


def test_parse_webhook_url_splits_host_port_and_target() -> None:
    endpoint = parse_webhook_url("https://Hooks.Example.com:8443/a/b?c=d")

    assert (endpoint.host, endpoint.port, endpoint.target) == ("hooks.example.com", 8443, "/a/b?c=d")
    assert endpoint.authority == "hooks.example.com:8443"
    assert parse_webhook_url("https://hooks.example.com").target == "/"
    assert parse_webhook_url("https://hooks.example.com").authority == "hooks.example.com"
    assert parse_webhook_url("https://[2606:4700:4700::1111]/").authority == "[2606:4700:4700::1111]"


def test_plain_http_is_accepted_only_for_an_allowed_network() -> None:
    allowed = networks(["127.0.0.0/8"])

    assert parse_webhook_url("http://127.0.0.1:9000/x", allowed).port == 9000
    with pytest.raises(ValueError, match="public address"):
        parse_webhook_url("http://10.0.0.1/x", allowed)


@given(st.text(max_size=60))
def test_parse_webhook_url_raises_only_value_error(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/x"):
        try:
            endpoint = parse_webhook_url(url)
        except ValueError:
            continue
        assert endpoint.scheme == "https"
