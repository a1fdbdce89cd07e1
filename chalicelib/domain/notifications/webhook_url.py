"""Parse the URL of a webhook strictly, because it comes from a user.

The address is checked again at each connection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from chalicelib.domain.notifications.network_policy import Network, is_allowed, parse_ip

MAX_URL_LENGTH = 2_048
FIRST_UNPRIVILEGED_PORT = 1_024
# Compiled at first use: most processes never need them.
_PRINTABLE = r"[!-~]+"
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NUMBER = r"[0-9]+|0x[0-9a-f]*"
_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookUrl:
    """The parts of a valid URL."""

    scheme: str
    host: str
    port: int
    target: str  # path and query, as in the request line

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"


def parse_webhook_url(url: str, allowed: Sequence[Network] = ()) -> WebhookUrl:
    """Parse and check a URL.

    `allowed`: networks that may be reached in addition to public ones. If there are any, http and
    bare host names are accepted too.

    Raises:
        ValueError: it cannot be used; the message continues a sentence that begins with the field.
    """
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"must have at most {MAX_URL_LENGTH} characters")
    if not re.fullmatch(_PRINTABLE, url) or "\\" in url:
        raise ValueError("must be a URL in ASCII; encode other letters as %XX, and in the host name as xn--...")
    parts, port = _split(url)
    _check_parts(url, parts, bool(allowed))
    host = (parts.hostname or "").lower()
    _check_host(host, allowed)
    port = port or _DEFAULT_PORTS[parts.scheme]
    if port != _DEFAULT_PORTS[parts.scheme] and port < FIRST_UNPRIVILEGED_PORT:
        raise ValueError(f"must use port {_DEFAULT_PORTS[parts.scheme]} or a port from {FIRST_UNPRIVILEGED_PORT} on")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return WebhookUrl(scheme=parts.scheme, host=host, port=port, target=target)


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError as exc:
        raise ValueError("is not a URL") from exc


def _check_parts(url: str, parts: SplitResult, allow_http: bool) -> None:
    if parts.scheme not in ("https", "http") or (parts.scheme == "http" and not allow_http):
        raise ValueError("must begin with https://")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password")
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
