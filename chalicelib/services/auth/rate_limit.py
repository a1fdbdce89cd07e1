"""Count the requests of an API key in windows of a minute."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.units import Ms
from chalicelib.ports import RequestCounters
from chalicelib.services.context import Context

WINDOW_SECONDS = 60


class RateLimitContext(Context, Protocol):
    """What counting needs."""

    @property
    def request_counters(self) -> RequestCounters: ...


def count_requests(ctx: RateLimitContext, caller: Caller, policy: str, requests: int = 1) -> int:
    """Count requests and return how many the key has made in this window.

    0 if it could not be counted: the limit protects against load, not against intruders, so the
    request is allowed.
    """
    now = ctx.clock.now() // 1000
    try:
        return ctx.request_counters.increment(f"{policy}#{caller.key_id}", now // WINDOW_SECONDS, now + 2 * WINDOW_SECONDS, requests)
    except Unavailable as exc:
        ctx.log("rate_limit_count_failed", key_id=caller.key_id, error=exc)
        return 0


def seconds_left(now: Ms) -> int:
    """Return the seconds until the next window begins."""
    return WINDOW_SECONDS - now // 1000 % WINDOW_SECONDS
