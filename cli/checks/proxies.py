"""Which proxy of the environment a request uses, for the sentences about it. The library reads the variables itself."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from cli.checks.redaction import redact


def is_loopback(url: str) -> bool:
    """Whether the address is one of this machine, which no proxy can reach."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".").lower()
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def proxy_of(url: str) -> str | None:
    """The variable and address of the proxy for this address, without its credentials; None if there is none."""
    from urllib.request import getproxies, proxy_bypass

    scheme = urlsplit(url).scheme
    host = urlsplit(url).hostname or ""
    if is_loopback(url) or proxy_bypass(host):
        return None
    proxies = getproxies()
    for name in (scheme, "all"):
        if value := proxies.get(name):
            return f"{_variable(name)}={shown_proxy(value)}"
    return None


def shown_proxy(value: str) -> str:
    """The address of a proxy without its credentials."""
    return redact(value) if "://" in value else redact(f"http://{value}").removeprefix("http://")


def _variable(name: str) -> str:
    """The variable that names this proxy, as it is written in the environment."""
    names = (f"{name}_proxy", f"{name}_proxy".upper())
    return next((each for each in names if os.environ.get(each)), names[1])
