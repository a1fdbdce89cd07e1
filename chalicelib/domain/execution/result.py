"""What an attempt left behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chalicelib.domain.execution.response_cache import CacheLookup
from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.units import Ms, Nano

WORKER_LOST = "worker_lost"  # why the sweep wrote a row, as well as it could


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of one attempt, written before the head says that it ended: whoever takes over finds it and need not ask again.

    `status` is the one that the head was to get.
    `generation` is that of the claim that wrote it: of two workers of one durable attempt the later one's row stays.
    `looked_up` is what the cache said, None where it was not asked: of a hit the text is another job's.
    `text` is what the model said, raw. `parsed` is that text read by its schema, None where there is no schema or it does not fit.
    `fallback`: no model said it, but the type's own plain way of answering, because there is no key.
    """

    job_id: str
    attempt: int
    text: str
    generation: int = 0
    parsed: Any = None
    status: str | None = None
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    cost: Nano | None = None
    started_at: Ms | None = None
    first_token_at: Ms | None = None
    finished_at: Ms | None = None
    error_code: str | None = None
    fallback: bool = False
    looked_up: CacheLookup | None = None
    ttl: int | None = None

    @property
    def is_exact(self) -> bool:
        """Whether the provider's final event was seen, so that text and usage are all there is."""
        return self.usage is not None and not self.usage.estimated
