"""What responses say about rate limits: the headers `x-ratelimit-*`, and the numbers in a refusal.

| where | forms |
|---|---|
| `x-ratelimit-<limit, remaining or reset>-<requests or tokens>` | numbers; `reset` is a duration |
| the same of a project, as `x-ratelimit-limit-project-tokens` | the lower limit counts |
| a 429 | "on tokens per min (TPM): Limit 30000, Used 14567, Requested 24754", "on requests per day. Limit: 200 / day" |

Some servers send -1 or 0 for what they do not know.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from chalicelib.adapters.openai.waits import duration
from chalicelib.domain.rate_headers import LimitHeaders, RateHeaders, Refusal

NAMES = {"requests": ("requests", "project-requests"), "tokens": ("tokens", "project-tokens")}
MAX_DIGITS = 15
_NUMBER = re.compile(rf"\s*(\d{{1,{MAX_DIGITS}}})(?![\d.])")
_COUNT = rf":?\s{{0,5}}([\d,]{{1,{MAX_DIGITS + 5}}})"
# The numbers follow the name of the limit at once, so that no quoted text comes between them.
_REFUSAL = re.compile(
    r"\b(?P<kind>requests|tokens) per (?P<per>\w{1,10})\b(?: ?\([A-Z]{2,5}\))?[:.]?\s{1,3}"
    rf"limit{_COUNT}(?: ?/ ?\w{{1,10}})?(?:[,.]? used{_COUNT})?(?:[,.]? requested{_COUNT})?",
    re.IGNORECASE,
)
_PARTS = re.compile(r"\b(?:input|output|image|audio|cached|batch|enqueued) $", re.IGNORECASE)


def rate_headers_of(headers: Mapping[str, str]) -> RateHeaders | None:
    """Return what the headers say; None: nothing."""
    requests, tokens = (_lower(headers, NAMES[kind]) for kind in ("requests", "tokens"))
    told = RateHeaders(requests=requests or LimitHeaders(), tokens=tokens or LimitHeaders())
    return told if requests or tokens else None


def refusal_of(message: str, wait: int | None) -> Refusal:
    """Return what the refusal of a request says.

    Args:
        wait: the seconds that it asks to wait.
    """
    asked = None if wait is None else wait * 1000
    found = _REFUSAL.search(message)
    if found is None or _PARTS.search(message[max(0, found.start() - 10) : found.start()]):
        return Refusal(wait=asked)
    limit, used, requested = (int(text.replace(",", "") or 0) if text else None for text in found.groups()[2:])
    of_minute = found["per"].lower() in ("min", "minute")
    return Refusal(kind=found["kind"].lower(), limit=limit or None, used=used, requested=requested, of_minute=of_minute, wait=asked)


def _lower(headers: Mapping[str, str], names: tuple[str, ...]) -> LimitHeaders | None:
    """Return the headers of the lowest of several limits; None: there are none."""
    told = [one for name in names if (one := _limit(headers, name)) is not None]
    return min(told, key=lambda one: (one.limit is None, one.limit or 0), default=None)


def _limit(headers: Mapping[str, str], name: str) -> LimitHeaders | None:
    limit, remaining = (_whole(headers.get(f"x-ratelimit-{what}-{name}", "")) for what in ("limit", "remaining"))
    if not limit and remaining is None:
        return None
    reset = duration(headers.get(f"x-ratelimit-reset-{name}", ""), time.time())
    return LimitHeaders(limit=limit or None, remaining=remaining, reset=reset)


def _whole(text: str) -> int | None:
    found = _NUMBER.match(text)
    return int(found[1]) if found else None
