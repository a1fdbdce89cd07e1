"""What is known about the rate limits of a model: configured, told by the provider, or found out.

| seen | learnt |
|---|---|
| `x-ratelimit-limit-*` of any response | the limit, if it moved by more than 1 %; values of 0 and below say nothing |
| less than a quarter `remaining` | others use the same account: the scheduler slows down in proportion, for ten seconds |
| 429 with "Limit 500, Used 500, Requested 1" | the limit; nothing starts before the provider's wait is over |
| 429 with the limit of a day | only the wait |
| 429 without numbers | nine tenths of the rate accepted since the one before (a minute at most); it grows back by 1 % a minute |

A configured limit wins if it is lower. All functions are pure; they return the same object if
nothing changes that is worth a write. A store writes the new value only if the version that it was
computed from is still current.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from chalicelib.domain.execution.retry_policy import MAX_RETRY_AFTER
from chalicelib.domain.limits.sliding_window import SECONDS, Frames, Limits, used
from chalicelib.domain.rate_headers import LimitHeaders, RateHeaders, Refusal
from chalicelib.domain.units import Ms

ACCOUNT = "stage"  # a stage has one OpenAI account: that of its key
MAX_LIMIT = 10**12  # a greater number is no limit
MOVED = 0.01  # by more than this part a limit has changed
LOW_SHARE = 0.25  # of a limit that remains; below it the pace is lowered
SHARE_STEP = 0.05  # a share that remains is kept in such steps: not each response is worth a write
SHARE_TTL_MS, SHARE_REFRESH_MS = 10_000, 5_000  # how long a share counts, and when the same one is written again
MIN_PACE = 0.1
ACCEPTED_PART = 0.9
MIN_ACCEPTED = 0.2  # of the limit; whoever is refused with less met something else than this limit
RECOVERY_MS, RECOVERY_STEP = 60_000, 0.01  # the factor grows by so much each minute
SAME_REFUSAL_MS = 10_000  # refusals within this time are one
MAX_MINUTE_SECONDS = 600.0  # a limit that takes longer to fill again is not one of a minute
MESSAGE_TTL_MS = 600_000  # how long a header does not raise a limit that a refusal named
# After that a limit that only a refusal named is forgotten: it may have been raised, and nothing would say so.
FORGOTTEN_MS = 86_400_000
REFRESH_MS = 86_400_000  # a limit that headers confirm is written again after that, so that its record stays
UNASKED_MS, MAX_UNASKED_MS = 2_000, 60_000  # the wait if the provider names none; doubles with each refusal in a row
MAX_WAIT_MS = round(1000 * MAX_RETRY_AFTER)


class LimitSource(StrEnum):
    """Where the limits of a model come from."""

    HEADER = "header"  # of a response
    MESSAGE = "message"  # of a refusal
    SETTING = "setting"  # an operator set them; nothing was learnt yet


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """The stored record of one model of one account."""

    model: str
    account: str = ""
    requests: int | None = None  # a minute; None: not known
    tokens: int | None = None
    source: LimitSource | None = None
    seen_at: Ms | None = None  # when headers were last learnt from
    remaining: float | None = None  # the share of the limits that remains; None: enough
    blocked_until: Ms | None = None
    factor: float = 1.0  # of the limits that was accepted, at `refused_at`
    refused_at: Ms | None = None
    refusals: int = 0  # in a row, without an answered request
    version: int = 0  # 0: never written
    configured_requests: int | None = None
    configured_tokens: int | None = None
    counts_used: bool = False  # the provider charges the tokens that were used, not those that were reserved
    windows: int = 1  # frames that share the limits; more for a thousand asks a second
    unknown_fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A request that is above a limit alone, so that it never starts."""

    model: str
    limit: int  # tokens a minute
    requested: int  # tokens

    def __str__(self) -> str:
        return (
            f"The request may use {self.requested:,} tokens (its input and `max_tokens`), "
            f"and {self.model} takes {self.limit:,} tokens a minute: it could never start."
        )


def known_limits(limit: RateLimit, now: Ms) -> tuple[int | None, int | None]:
    """Return the requests and tokens of a minute: what is configured, or what was learnt if that is lower."""
    is_old = limit.source is LimitSource.MESSAGE and now - (limit.refused_at or 0) >= FORGOTTEN_MS
    requests, tokens = (None, None) if is_old else (limit.requests, limit.tokens)
    return _lower(requests, limit.configured_requests), _lower(tokens, limit.configured_tokens)


def effective(limit: RateLimit, now: Ms) -> Limits:
    """Return what may start now, in each window."""
    requests, tokens = known_limits(limit, now)
    return Limits(
        requests=_part(requests, limit.windows),
        tokens=_part(tokens, limit.windows),
        factor=current_factor(limit, now),
        pace=_pace(limit, now),
        blocked_until=limit.blocked_until,
    )


def current_factor(limit: RateLimit, now: Ms) -> float:
    """Return the factor with what has grown back since the refusal."""
    if limit.factor >= 1.0 or limit.refused_at is None:
        return 1.0
    return min(1.0, limit.factor + RECOVERY_STEP * (max(0, now - limit.refused_at) // RECOVERY_MS))


def too_large(limit: RateLimit, tokens: int, now: Ms) -> TooLarge | None:
    """Return why a request of so many tokens can never start; None: it can."""
    allowed = _part(known_limits(limit, now)[1], limit.windows)
    return TooLarge(limit.model, allowed, tokens) if allowed is not None and tokens > allowed else None


def learn_from_headers(limit: RateLimit, headers: RateHeaders, now: Ms) -> RateLimit:
    """Learn from an answer; one without such headers still ends a row of refusals."""
    changed = _with_limits(limit, headers, now)
    share = _remaining(headers)
    age, is_free = now - (limit.seen_at or 0), now >= (limit.blocked_until or 0)
    refusals = 0 if is_free else limit.refusals
    is_new = changed is not limit or share != limit.remaining or refusals != limit.refusals
    is_known = limit.requests is not None or limit.tokens is not None
    if not is_new and not (share is not None and age >= SHARE_REFRESH_MS) and not (is_known and age >= REFRESH_MS):
        return limit
    return replace(changed, seen_at=now, remaining=share, refusals=refusals, version=limit.version + 1)


def learn_from_refusal(limit: RateLimit, refusal: Refusal, frames: Frames, now: Ms, headers: RateHeaders | None = None) -> RateLimit:
    """Learn from a 429 that is about all requests to the model.

    Args:
        frames: the starts of the last minute, with that of the refused request; empty if they are not known.
        headers: those of the same response.
    """
    is_first = limit.refused_at is None or now - limit.refused_at >= SAME_REFUSAL_MS
    grown = replace(limit, factor=current_factor(limit, now)) if is_first else limit  # the time starts anew
    changed = grown if headers is None else _with_limits(grown, headers, now)
    if refusal.of_minute and refusal.kind is not None and _is_limit(refusal.limit):
        if refusal.limit != getattr(limit, refusal.kind):
            changed = replace(changed, **{refusal.kind: refusal.limit}, source=LimitSource.MESSAGE, factor=1.0)  # type: ignore[arg-type]
    elif refusal.of_minute and is_first:
        changed = replace(changed, factor=_accepted(limit if changed is grown else changed, frames, now))
    refusals = limit.refusals + 1 if is_first or not limit.refusals else limit.refusals
    wait = refusal.wait if refusal.wait is not None else min(MAX_UNASKED_MS, UNASKED_MS << min(refusals - 1, 16))
    until = now + min(MAX_WAIT_MS, max(0, wait))
    if refusal.wait is None and not is_first and (limit.blocked_until or 0) > now:
        until = 0  # one that was on its way when the first was refused
    blocked = max(limit.blocked_until or 0, until) or None
    if changed is limit and blocked == limit.blocked_until and not is_first:
        return limit
    refused_at = now if is_first else limit.refused_at
    return replace(changed, blocked_until=blocked, refused_at=refused_at, refusals=refusals, version=limit.version + 1)


def unblock(limit: RateLimit, now: Ms) -> RateLimit:
    """End the wait that the provider asked for, on an operator's request: it was wrong."""
    if (limit.blocked_until or 0) <= now:
        return limit
    return replace(limit, blocked_until=None, refusals=0, version=limit.version + 1)


def configure(limit: RateLimit, requests: int | None, tokens: int | None) -> RateLimit:
    """Set or clear the limits of the operator.

    Raises:
        ValueError: a limit is below 1, or too large to be one.
    """
    for value in (requests, tokens):
        if value is not None and not _is_limit(value):
            raise ValueError(f"a limit is a whole number from 1 to {MAX_LIMIT:,}")
    if (requests, tokens) == (limit.configured_requests, limit.configured_tokens):
        return limit
    source = limit.source or (LimitSource.SETTING if requests or tokens else None)
    if limit.source is LimitSource.SETTING and not (requests or tokens):
        source = None
    return replace(limit, configured_requests=requests, configured_tokens=tokens, source=source, factor=1.0, version=limit.version + 1)


def _with_limits(limit: RateLimit, headers: RateHeaders, now: Ms) -> RateLimit:
    """Take over the limits that the headers name, if they moved."""
    moved: dict[str, int] = {}
    for kind in ("requests", "tokens"):
        told: LimitHeaders = getattr(headers, kind)
        known: int | None = getattr(limit, kind)
        if told.limit is None or not _is_limit(told.limit) or not _is_of_minute(told):
            continue
        if known is not None and abs(told.limit - known) <= MOVED * known:
            continue
        by_message = limit.source is LimitSource.MESSAGE and now - (limit.refused_at or 0) < MESSAGE_TTL_MS
        if known is None or told.limit < known or not by_message:
            moved[kind] = told.limit
    # The factor was found by refusals of another limit.
    return replace(limit, **moved, source=LimitSource.HEADER, factor=1.0) if moved else limit  # type: ignore[arg-type]


def _is_of_minute(told: LimitHeaders) -> bool:
    """Whether the limit is that of a minute, by how long it takes to be free again.

    For some models the header names the requests of a day: of 10,000 one is used, and it is free
    again in 8.64 s.
    """
    if told.limit is None or told.remaining is None or told.reset is None or told.remaining >= told.limit:
        return True
    return told.limit * told.reset / (told.limit - told.remaining) <= MAX_MINUTE_SECONDS


def _remaining(headers: RateHeaders) -> float | None:
    """Return the lower share that remains, in steps; None: a quarter or more, or it is not told."""
    shares = [
        max(0, told.remaining) / told.limit
        for told in (headers.requests, headers.tokens)
        if told.limit and told.remaining is not None and _is_of_minute(told)
    ]
    share = min(shares, default=1.0)
    return None if share >= LOW_SHARE else int(share / SHARE_STEP) * SHARE_STEP


def _pace(limit: RateLimit, now: Ms) -> float:
    if limit.remaining is None or now - (limit.seen_at or 0) > SHARE_TTL_MS:
        return 1.0
    return max(MIN_PACE, limit.remaining / LOW_SHARE)


def _accepted(limit: RateLimit, frames: Frames, now: Ms) -> float:
    """Return the factor after a refusal without numbers: nine tenths of the rate that was accepted.

    A provider that refuses has nothing left of what it saves while little is asked for. So after the
    first refusal a minute tells too much, but between two of them was accepted what its limit gives.
    """
    requests, current = known_limits(limit, now)[0], current_factor(limit, now)
    seconds = SECONDS if limit.refused_at is None else min(SECONDS, (now - limit.refused_at) // 1000)
    accepted = max(0, used(frames, now, seconds)[0] - 1) * SECONDS / seconds
    if requests is None or accepted < MIN_ACCEPTED * requests:
        return current
    return min(accepted / requests, current) * ACCEPTED_PART


def _is_limit(value: int | None) -> bool:
    return value is not None and 0 < value <= MAX_LIMIT


def _lower(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _part(limit: int | None, windows: int) -> int | None:
    return None if limit is None else max(1, limit // max(1, windows))
