"""Signed links to object storage.

The link itself grants access, so the API key is never sent there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.checks.redaction import redact
from cli.errors import Unreachable
from cli.http_client import new_client

if TYPE_CHECKING:
    import httpx2

MAX_ATTEMPTS = 3
TIMEOUT = 120.0


def upload(url: str, headers: dict[str, str], data: bytes, sleep: Callable[[float], None] | None = None) -> None:
    """PUT a file to a signed link.

    Network and server errors are retried: repeating a PUT of the same bytes is safe.
    """
    import httpx2

    with _client(url) as client:
        for attempts_left in reversed(range(MAX_ATTEMPTS)):
            try:
                response = client.put(url, content=data, headers=headers)
            except (httpx2.RequestError, httpx2.InvalidURL) as error:
                if not attempts_left:
                    raise Unreachable(f"The file could not be sent: {redact(str(error)) or type(error).__name__}") from error
            else:
                if response.is_success:
                    return
                if response.status_code < 500 or not attempts_left:
                    raise Unreachable(f"The file could not be sent: storage answered {response.status_code}.")
            (sleep or time.sleep)(1.0)


def download(url: str) -> Iterator[bytes]:
    """Yield the content of a signed link in chunks.

    Raises Unreachable if it cannot be read to its end.
    """
    import httpx2

    try:
        with _client(url) as client, client.stream("GET", url) as response:
            if not response.is_success:
                raise Unreachable(f"The file could not be downloaded: storage answered {response.status_code}.")
            yield from response.iter_bytes()
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        raise Unreachable(f"The download broke off: {redact(str(error)) or type(error).__name__}") from error


@contextmanager
def _client(url: str) -> Iterator[httpx2.Client]:
    with new_client(url, TIMEOUT, headers={"User-Agent": "headrace-cli"}) as client:
        yield client
