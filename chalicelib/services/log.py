"""How facts are told."""

from __future__ import annotations

from typing import Any, Protocol


class Log(Protocol):
    def __call__(self, fact: str, **fields: Any) -> None: ...
