"""A port with a hook before and after each call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


class Hooked:
    """Calls `before` and `after` with the name of each call, `port.method`.

    The caller gets what a hook raises.
    """

    def __init__(self, name: str, real: Any, before: Callable[[str], None], after: Callable[[str], None]) -> None:
        self._name, self._real, self._before, self._after = name, real, before, after

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._real, method)
        return partial(self._call, real, f"{self._name}.{method}") if callable(real) else real

    def _call(self, real: Callable[..., Any], name: str, *args: Any, **named: Any) -> Any:
        self._before(name)
        answer = real(*args, **named)
        self._after(name)
        return answer
