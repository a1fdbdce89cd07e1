"""Stores whose calls fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chalicelib.domain.errors import Throttled


@contextmanager
def refusing(port: Any, method: str, times: int = 1, error: type[Exception] = Throttled, *, after: bool = False) -> Iterator[list[int]]:
    """Make the next `times` calls of `method` raise `error`, before their effect or `after` it.

    Yields a list with the number of calls.
    """
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
