"""The HTTP client that all requests use, with the proxies and certificates of the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cli.checks.proxies import is_loopback, proxy_of, shown_proxy
from cli.checks.redaction import redact
from cli.errors import UsageError

if TYPE_CHECKING:
    import httpx2


def new_client(url: str, timeout: float, **options: Any) -> httpx2.Client:
    """A client for this address. For addresses of this machine it ignores the proxies of the environment.

    Raises UsageError if the environment names a proxy or certificates that cannot be used.
    """
    import httpx2

    try:
        return httpx2.Client(timeout=timeout, trust_env=not is_loopback(url), **options)
    except ImportError as error:
        raise UsageError(
            f"The proxy {_proxy(url)} speaks SOCKS, which needs the package socksio.",
            'Install it with `pip install "httpx2[socks]"`, or name an HTTP proxy; NO_PROXY does not help here.',
        ) from error
    except (httpx2.InvalidURL, ValueError, TypeError) as error:
        raise UsageError(f"The proxy {_proxy(url)} cannot be used: {redact(str(error)).rstrip('.')}.") from error
    except OSError as error:  # ssl.SSLError is one
        names = ", ".join(f"{name}={os.environ[name]}" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name))
        raise UsageError(f"The certificates of {names or 'this machine'} cannot be read: {error.strerror or error}.") from error


def _proxy(url: str) -> str:
    """The proxy that is in the way: that of this address, or else any of the environment, because the client makes all of them ready."""
    names = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    others = (f"{name}={shown_proxy(os.environ[name])}" for name in names if os.environ.get(name))
    socks = next((each for each in others if "socks" in each), None)
    return socks or proxy_of(url) or "of the environment"
