"""Answers that serve again: whose answer a key names, for how long, and what a job's result says of it.

What is kept is a reference, never a copy: the text stays with the job that was given it, and goes when that goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chalicelib.domain.units import Ms

DEFAULT_SECONDS = 86_400.0  # `config.cache: true`
MAX_SECONDS = 2_592_000  # as long as results are kept


def parse_ttl(asked: Any) -> float | None:
    """`config.cache` as it is asked for (`false`, `true`, `{"ttl": seconds}`) in seconds; None: not at all."""
    if isinstance(asked, dict):
        return float(asked.get("ttl", DEFAULT_SECONDS))
    return DEFAULT_SECONDS if asked else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedResponse:
    """Whose answer it is: that of `attempt` of a job, kept at `at`. It serves nobody from `expires_at` on."""

    job_id: str
    attempt: int
    stored_at: Ms
    expires_at: Ms

    def is_fresh(self, seconds: float, now: Ms) -> bool:
        """Whether somebody may have it who takes nothing older than so many seconds. One of the future (clocks differ) is new."""
        return now < self.expires_at and now - self.stored_at < seconds * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLookup:
    """What became of asking the cache: the job whose answer it was and since when it is kept, or nothing of the kind."""

    job_id: str | None = None
    at: Ms | None = None

    @property
    def hit(self) -> bool:
        return self.job_id is not None
