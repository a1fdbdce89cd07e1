"""How long a provider asks to wait, in every form in which providers say it.

| where | forms |
|---|---|
| `retry-after-ms`, `x-ms-retry-after-ms` | milliseconds |
| `Retry-After` | seconds, also with a fraction, a unit (`1m30s`), quoted or repeated; a date of HTTP or ISO 8601; a moment in Unix time |
| the message | "try again in 6h3m12.5s", "retry after 20 minutes", "in 1 day", "in 250ms", "in 00:01:30", "resets at 2026-12-01 10:00" |
| fields of the body | `retry_after`, `retry_after_ms`, `retryDelay`, `resets_in_seconds`, `resets_at`, `estimated_time` |
| `x-ratelimit-reset-*`, `anthropic-ratelimit-*-reset`, `ratelimit-reset` | a duration, seconds, a date or a moment |
| `RateLimit` | seconds: `limit=100, remaining=0, reset=50` or `"default";r=0;t=50` |

Of the header, the message and the fields the longest wait counts. The headers in the last two lines
count only if nothing else says it. Fields may also be in an object inside, as a gateway has the
headers that it got.
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
_BEFORE = r"(?:try|retry|retrying|available|resets?|again|replenished|another request)[\w\s]{0,40}?\b(?:in|after|for)|\bwait(?: for)?"
_ABOUT = r"(?:about |approximately |at least )?"
_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "five": 5, "ten": 10}
_ASKED = re.compile(rf"(?:{_BEFORE})\s+{_ABOUT}({_DURATION}|(?:{'|'.join(_COUNTS)}) (?:minute|hour|day|week)s?\b)", re.IGNORECASE)
_CLOCK = re.compile(rf"(?:{_BEFORE})\s+{_ABOUT}(?:(\d{{1,3}})\.)?(\d{{1,3}}):(\d\d):(\d\d)\b", re.IGNORECASE)
_MOMENT = re.compile(
    r"\b(?:resets?|reset|try again|retry|available|regain access|replenished)\b[\w\s]{0,20}?\b(?:at|on|after|until)\b:?\s+"
    r"(\d{4}-\d\d-\d\d)(?:T|\s+(?:at\s+)?)(\d\d:\d\d(?::\d\d)?)(?:\.\d{1,9})?\s?(Z|UTC|GMT|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)
_FIELD = re.compile(r"\bretry[-_ ]after[\"']?\s?[:=]\s?[\"']?(\d{1,9}(?:\.\d{1,9})?)\b(?!\s?[a-z])", re.IGNORECASE)
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d[T ]")
_RESET = re.compile(r"(?:x-)?ratelimit-reset|anthropic-ratelimit-[a-z-]{1,40}-reset$")
_REST = re.compile(r"\b(?:reset|t)\s?=\s?(\d{1,9})\b")  # of the `RateLimit` header
# Names without `_` and `-`, in small letters: the value is a duration or a moment.
WAIT_FIELDS = frozenset(
    {
        *("retryafter", "retryafterms", "retryafterseconds", "retrydelay", "retryinseconds", "estimatedtime"),
        *("resetsinseconds", "resetinseconds", "resetsin", "resetin", "resetsat", "resetat", "xratelimitreset"),
    }
)


def wait_of(
    headers: Mapping[str, str], message: str, fields: Mapping[str, Any], kinds: frozenset[str], now: float, *, resets: bool = True
) -> int | None:
    """Return the wait that a response asks for, in whole seconds, rounded up; None: it asks for none.

    Args:
        fields: the body's error object.
        kinds: what is limited, such as `tokens`, by the codes of the error.
        now: the time, in seconds since 1970.
        resets: whether the end of a limit's period is a wait. Other responses have these headers, too.
    """
    asked = [wait for wait in (retry_after(headers, now), wait_in_words(message, now), _in_fields(fields, now)) if wait is not None]
    wait = max(asked, default=None)
    if wait is None and resets:
        wait = _reset(headers, kinds, now)
    return None if wait is None else max(0, math.ceil(wait))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds of `retry-after-ms`, else of `Retry-After`; None: there is neither."""
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if (wait := _number(headers.get(name, ""))) is not None:
            return max(0.0, wait / 1000)
    return duration(headers.get("retry-after", ""), now)


def wait_in_words(message: str, now: float) -> float | None:
    """Return the seconds of "Please try again in 1m12.5s", or until "Your limit resets at 2026-12-01T10:00:00Z"."""
    if found := _ASKED.search(message):
        return _sum_of(found[1])
    if found := _CLOCK.search(message):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    if found := _MOMENT.search(message):
        zone = "+00:00" if (found[3] or "Z").upper() in ("Z", "UTC", "GMT") else found[3]
        return duration(f"{found[1]}T{found[2]}{zone}", now)
    return float(found[1]) if (found := _FIELD.search(message)) else None


def duration(text: str, now: float) -> float | None:
    """Return the seconds until what a header names: a number, a duration, a date or a moment."""
    text = text[:MAX_HEADER].strip().strip("\"'")
    numbers = [_number(part) for part in text.split(",")]  # a header that was sent twice
    number = None if None in numbers else max(one for one in numbers if one is not None)
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
    first, _, rest = text.partition(" ")
    text = f"{_COUNTS[first.lower()]} {rest}" if first.lower() in _COUNTS else text
    return sum(
        float(count) * UNITS["ms" if unit.lower().startswith(("ms", "milli")) else unit[0].lower()] for count, unit in _PART.findall(text)
    )


def _in_fields(fields: Mapping[str, Any], now: float) -> float | None:
    found = [wait for name, value in _pairs(fields) if (wait := _field(name, value, now)) is not None]
    return max(found, default=None)


def _field(name: str, value: Any, now: float) -> float | None:
    name = name.lower().replace("_", "").replace("-", "")
    if name not in WAIT_FIELDS or isinstance(value, bool):
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
    names = [name.lower() for name in headers if _RESET.match(name.lower())]
    waits = {name: wait for name in names if (wait := duration(headers[name], now)) is not None}
    spent = [wait for name, wait in waits.items() if _number(headers.get(name.replace("reset", "remaining"), "")) == 0]
    named = [wait for name, wait in waits.items() if any(f"-{kind}" in name for kind in kinds)]
    rest = _REST.search(headers.get("ratelimit", "")[:MAX_HEADER])
    return max(spent or named, default=min(waits.values(), default=float(rest[1]) if rest else None))
