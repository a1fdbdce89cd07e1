"""The proxies of the shell that the functions of the laptop cloud get: they need one to reach OpenAI, and none for this machine."""

from __future__ import annotations

from collections.abc import Mapping

from cli.checks.proxies import shown_proxy

VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")
LOOPBACK = "127.0.0.1,localhost,::1"


def proxies_for_functions(environment: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables that the libraries of the functions can use, with this machine excepted.

    One without a scheme is an HTTP proxy. SOCKS is left out: the functions have no package for it,
    and their HTTP client would not even start.
    """
    found = {}
    for name in VARIABLES:
        value = _address(environment.get(name, ""))
        if value and not _is_socks(value):
            found[name] = value
    exceptions = ",".join(part for part in (LOOPBACK, environment.get("NO_PROXY") or environment.get("no_proxy") or "") if part)
    return found | {"NO_PROXY": exceptions, "no_proxy": exceptions}


def left_out(environment: Mapping[str, str]) -> str | None:
    """A sentence about the proxies that the functions do not get; None if they get all."""
    names = [f"{name}={shown_proxy(value)}" for name in VARIABLES if _is_socks(value := _address(environment.get(name, "")))]
    if not names:
        return None
    return f"Functions go without {names[0]}: they cannot speak SOCKS. An OpenAI that only it reaches needs an HTTP proxy."


def _address(value: str) -> str:
    value = value.strip()
    return value if "://" in value or not value else f"http://{value}"


def _is_socks(value: str) -> bool:
    return value.lower().startswith("socks")
