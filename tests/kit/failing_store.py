"""Stores that do not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chalicelib.domain.errors import Throttled


@contextmanager
def refusing(port: Any, method: str, times: int = 1, error: type[Exception] = Throttled, *, after: bool = False) -> Iterator[list[int]]:
    """`method` of `port` fails so many times, before its effect or `after` it. The list counts the calls."""
    real, calls = getattr(port, method), [0]

    def call(*args: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] > times:
            return real(*args, **named)
        if after:
            real(*args, **named)
        raise error

    setattr(port, method, call)
    try:
        yield calls
    finally:
        setattr(port, method, real)
