"""Signed links: addresses of object storage, which carry their own right. The key of the API is never sent there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.api import is_local
from cli.errors import Unreachable

if TYPE_CHECKING:
    import httpx2

TRIES = 3
TIMEOUT = 120.0


def upload(url: str, headers: dict[str, str], data: bytes, sleep: Callable[[float], None] | None = None) -> None:
    """PUT a file; again where that may help, since the same bytes make the same object."""
    import httpx2

    with _client(url) as client:
        for tries_left in reversed(range(TRIES)):
            try:
                response = client.put(url, content=data, headers=headers)
            except httpx2.TransportError as problem:
                if not tries_left:
                    raise Unreachable(f"The file could not be sent: {problem or type(problem).__name__}") from problem
            else:
                if response.is_success:
                    return
                if response.status_code < 500 or not tries_left:
                    raise Unreachable(f"The file could not be sent: storage answered {response.status_code}.")
            (sleep or time.sleep)(1.0)


def download(url: str) -> Iterator[bytes]:
    """What is there, piece by piece. Raises Unreachable where it breaks off."""
    import httpx2

    try:
        with _client(url) as client, client.stream("GET", url) as response:
            if not response.is_success:
                raise Unreachable(f"The link could not be followed: storage answered {response.status_code}.")
            yield from response.iter_bytes()
    except httpx2.TransportError as problem:
        raise Unreachable(f"The link broke off: {problem or type(problem).__name__}") from problem


@contextmanager
def _client(url: str) -> Iterator[httpx2.Client]:
    import httpx2

    with httpx2.Client(timeout=TIMEOUT, trust_env=not is_local(url), headers={"User-Agent": "headrace-cli"}) as client:
        yield client
