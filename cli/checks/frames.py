"""Check frames before they are used: whatever answers at an address can send anything."""

from __future__ import annotations

from typing import Any

_WHOLE = ("attempt", "offset", "version", "length")
_TEXT = ("event", "job_id", "text", "status")


def is_frame(value: Any) -> bool:
    """Whether this is a frame whose fields have the types that `TextAssembler` relies on."""
    if not isinstance(value, dict):
        return False
    if any(value.get(name) is not None and not _is_count(value[name]) for name in _WHOLE):
        return False
    if any(value.get(name) is not None and not isinstance(value[name], str) for name in _TEXT):
        return False
    return value.get("event") != "tokens" or (_is_count(value.get("offset")) and isinstance(value.get("text"), str))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
