"""Check that what was given on the command line can be sent, before anything is sent."""

from __future__ import annotations

import math
from typing import Any

from cli.checks.text_input import problem_of_text
from cli.errors import UsageError


def check_sendable(*parts: Any) -> None:
    """Raises UsageError for text that is not Unicode and for numbers that JSON does not have; it names their place."""
    pending: list[tuple[str, Any]] = [("", part) for part in parts]
    while pending:
        place, value = pending.pop()
        if isinstance(value, str):
            if problem := problem_of_text(value):
                raise UsageError(f"{place or 'The request'} {problem}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{place or 'The request'} must be a finite number.")
        elif isinstance(value, dict):
            pending += [(f"{place}.{name}" if place else str(name), inner) for name, inner in value.items()]
            pending += [("a name", name) for name in value]
        elif isinstance(value, list | tuple):
            pending += [(f"{place}[{index}]", inner) for index, inner in enumerate(value)]
