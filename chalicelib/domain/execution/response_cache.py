"""The response cache: entries that refer to the result of an earlier job with the same request.

An entry is a reference, never a copy: the text stays with the job that produced it and expires with
that job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chalicelib.domain.units import Ms

DEFAULT_SECONDS = 86_400.0  # for `config.cache: true`
MAX_SECONDS = 2_592_000  # as long as results are kept


def parse_ttl(cache: Any) -> float | None:
    """Return the seconds of `config.cache`: `false` (None), `true` or `{"ttl": seconds}`."""
    if isinstance(cache, dict):
        return float(cache.get("ttl", DEFAULT_SECONDS))
    return DEFAULT_SECONDS if cache else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedResponse:
    """A cache entry."""

    job_id: str  # the job that produced the response
    attempt: int  # the attempt of that job
    stored_at: Ms
    expires_at: Ms  # the entry is not used from then on

    def is_fresh(self, seconds: float, now: Ms) -> bool:
        """Whether the entry is not expired and younger than `seconds`.

        A time in the future (clocks differ) counts as new.
        """
        return now < self.expires_at and now - self.stored_at < seconds * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLookup:
    """The outcome of a cache lookup."""

    job_id: str | None = None  # the job whose response is reused; None: a miss
    at: Ms | None = None  # when that response was stored

    @property
    def hit(self) -> bool:
        return self.job_id is not None
