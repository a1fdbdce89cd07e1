"""Declare how services write log events."""

from __future__ import annotations

from typing import Any, Protocol


class Log(Protocol):
    """Write one event: `fact` is its stable key."""

    def __call__(self, fact: str, **fields: Any) -> None: ...
