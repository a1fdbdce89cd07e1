"""What a response of the provider says about its rate limits."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.domain.units import Ms


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitHeaders:
    """The headers about one kind of limit. None: absent, or no number that can be one."""

    limit: int | None = None  # above 0
    remaining: int | None = None  # 0 or more
    reset: float | None = None  # seconds until all of it is free again


@dataclass(frozen=True, slots=True, kw_only=True)
class RateHeaders:
    """The headers `x-ratelimit-*` of a response, also of one that is an error."""

    requests: LimitHeaders = LimitHeaders()
    tokens: LimitHeaders = LimitHeaders()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a response of 429 says. The numbers are None if its message names none."""

    kind: str | None = None  # `requests` or `tokens`
    limit: int | None = None
    used: int | None = None
    requested: int | None = None
    of_minute: bool = True  # not of a day or an hour
    wait: Ms | None = None  # that the provider asks for; None: it names none
