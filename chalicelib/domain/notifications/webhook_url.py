"""Where a webhook goes: an address that somebody gave us, read strictly. Whether it may be reached is asked again at each connection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from chalicelib.domain.notifications.network_policy import Network, is_allowed, parse_ip

MAX_URL_LENGTH = 2_048
FIRST_FREE_PORT = 1_024
# Compiled at their first use: most environments never have one.
_PRINTABLE = r"[!-~]+"
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NUMBER = r"[0-9]+|0x[0-9a-f]*"
_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookUrl:
    """`target` is path and query, as the request names them."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"


def parse_webhook_url(url: str, allowed: Sequence[Network] = ()) -> WebhookUrl:
    """Read an address. `allowed` are the networks that may be reached besides public ones, and without TLS.

    Raises:
        ValueError: it cannot be used; the message says why, as the rest of a sentence about it.
    """
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"must have at most {MAX_URL_LENGTH} characters")
    if not re.fullmatch(_PRINTABLE, url) or "\\" in url:
        raise ValueError("must be a URL in ASCII; write other letters as %XX, and a name as xn--...")
    parts, port = _split(url)
    _check_parts(url, parts, bool(allowed))
    host = (parts.hostname or "").lower()
    _check_host(host, allowed)
    port = port or _DEFAULT_PORTS[parts.scheme]
    if port != _DEFAULT_PORTS[parts.scheme] and port < FIRST_FREE_PORT:
        raise ValueError(f"may name port {_DEFAULT_PORTS[parts.scheme]}, or one from {FIRST_FREE_PORT} on")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return WebhookUrl(scheme=parts.scheme, host=host, port=port, target=target)


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError as exc:
        raise ValueError("is no URL") from exc


def _check_parts(url: str, parts: SplitResult, plain: bool) -> None:
    if parts.scheme not in ("https", "http") or (parts.scheme == "http" and not plain):
        raise ValueError("must begin with https://")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password")
    if "#" in url:
        raise ValueError("must not have a fragment")


def _check_host(host: str, allowed: Sequence[Network]) -> None:
    address = parse_ip(host)
    if address is not None:
        if not is_allowed(address, allowed):
            raise ValueError("must be a public address")
        return
    labels = host.split(".")
    if len(host) > 253 or not all(re.fullmatch(_LABEL, label) for label in labels) or re.fullmatch(_NUMBER, labels[-1]):
        raise ValueError("must name a host")
    if len(labels) == 1 and not allowed:
        raise ValueError("must name a public host")
