"""How long a provider asks to wait, in every form in which providers say it.

| where | forms |
|---|---|
| `retry-after-ms` | milliseconds |
| `Retry-After` | seconds, also with a fraction or a unit (`1m30s`); a date of HTTP or ISO 8601; a moment in Unix time |
| the message | "try again in 6h3m12.5s", "retry after 20 minutes", "in 1 day", "in 250ms" |
| fields of the body | `retry_after`, `retry_after_ms`, `retryDelay` |
| `x-ratelimit-reset-*`, `ratelimit-reset` | a duration, seconds, a date or a moment; only if nothing else says it |

Of the header and the message the longer wait counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
UNIX_TIME = 10**9  # seconds; a number as large is no duration
MAX_HEADER = 100  # characters of a header that are read
_UNIT = r"(milliseconds?|millis|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|w)"
_PART = re.compile(rf"(\d+(?:\.\d+)?)\s*{_UNIT}(?![a-z])", re.IGNORECASE)
_DURATION = rf"(?:\d+(?:\.\d+)?\s*{_UNIT}(?![a-z])(?:\s*(?:,|and)?\s*))+"
_WHOLE = re.compile(rf"\s*{_DURATION}\s*", re.IGNORECASE)
_BEFORE = r"(?:try|retry|available|resets?|again)[\w\s]{0,40}?\b(?:in|after|for)|\bwait(?: for)?"
_ABOUT = r"(?:about |approximately |at least )?"
_ASKED = re.compile(rf"(?:{_BEFORE})\s+{_ABOUT}({_DURATION}|an? (?:minute|hour|day|week)\b)", re.IGNORECASE)
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d[T ]")


def wait_of(headers: Mapping[str, str], message: str, fields: Mapping[str, Any], kinds: frozenset[str], now: float) -> int | None:
    """Return the wait that a response asks for, in whole seconds, rounded up; None: it asks for none.

    Args:
        fields: the body's error object.
        kinds: what is limited, such as `tokens`, by the codes of the error.
        now: the time, in seconds since 1970.
    """
    asked = [wait for wait in (retry_after(headers, now), wait_in_words(message), _in_fields(fields, now)) if wait is not None]
    wait = max(asked, default=None)
    if wait is None:
        wait = _reset(headers, kinds, now)
    return None if wait is None else max(0, math.ceil(wait))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds of `retry-after-ms`, else of `Retry-After`; None: there is neither."""
    wait = _number(headers.get("retry-after-ms", ""))
    if wait is not None:
        return max(0.0, wait / 1000)
    return duration(headers.get("retry-after", ""), now)


def wait_in_words(message: str) -> float | None:
    """Return the seconds of "Please try again in 1m12.5s"."""
    found = _ASKED.search(message)
    return _sum_of(found[1]) if found else None


def duration(text: str, now: float) -> float | None:
    """Return the seconds until what a header names: a number, a duration, a date or a moment."""
    text = text[:MAX_HEADER].strip()
    number = _number(text)
    if number is not None:
        if number >= UNIX_TIME:
            number = (number if number < UNIX_TIME * 1000 else number / 1000) - now
        return max(0.0, number)
    if _WHOLE.fullmatch(text):
        return _sum_of(text)
    try:
        moment = datetime.fromisoformat(text) if _ISO_DATE.match(text) else parsedate_to_datetime(text)
        return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _sum_of(text: str) -> float:
    """Return the seconds of `6h3m12.5s` or `an hour`."""
    text = re.sub(r"^an? ", "1 ", text)
    return sum(
        float(count) * UNITS["ms" if unit.lower().startswith(("ms", "milli")) else unit[0].lower()] for count, unit in _PART.findall(text)
    )


def _in_fields(fields: Mapping[str, Any], now: float) -> float | None:
    found = [wait for name, value in _pairs(fields) if (wait := _field(name, value, now)) is not None]
    return max(found, default=None)


def _field(name: str, value: Any, now: float) -> float | None:
    name = name.lower().replace("_", "").replace("-", "")
    if name not in ("retryafter", "retryafterms", "retrydelay", "retryafterseconds") or isinstance(value, bool):
        return None
    wait = duration(str(value), now) if isinstance(value, str | int | float) else None
    return wait / 1000 if wait is not None and name.endswith("ms") else wait


def _pairs(fields: Mapping[str, Any], depth: int = 3) -> Iterator[tuple[str, Any]]:
    """Yield names and values, also those of the objects inside, as of `details` and `metadata`."""
    for name, value in fields.items():
        yield str(name), value
        for inner in (value if isinstance(value, list) else [value])[:20]:
            if depth and isinstance(inner, Mapping):
                yield from _pairs(inner, depth - 1)


def _reset(headers: Mapping[str, str], kinds: frozenset[str], now: float) -> float | None:
    """Return when the limit that is used up is reset.

    Without a `remaining` of 0 it is the one that the error names, else the one that is reset first.
    """
    names = [name.lower() for name in headers if name.lower().startswith(("x-ratelimit-reset", "ratelimit-reset"))]
    waits = {name: wait for name in names if (wait := duration(headers[name], now)) is not None}
    spent = [wait for name, wait in waits.items() if _number(headers.get(name.replace("reset", "remaining"), "")) == 0]
    named = [wait for name, wait in waits.items() if any(name.endswith(f"-{kind}") for kind in kinds)]
    return max(spent or named, default=min(waits.values(), default=None))
