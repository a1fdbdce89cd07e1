"""The stored result of an attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chalicelib.domain.execution.response_cache import CacheLookup
from chalicelib.domain.jobs.job import Status, Usage
from chalicelib.domain.units import Ms, Nano

# `finish_reason` of a row that the sweeper wrote, with estimates, for a worker that died.
WORKER_LOST = "worker_lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of one attempt.

    It is written before the job record says that the attempt ended, so that a worker that recovers
    the job finds it and does not ask the provider again.
    """

    job_id: str
    attempt: int
    text: str  # the raw answer of the model
    # Of the claim that wrote it: of two workers of one durable attempt, the later row stays.
    generation: int = 0
    # The text parsed by its schema; None: no schema, or the text does not match it.
    parsed: Any = None
    status: str | None = None  # the status that the job record is about to get
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    cost: Nano | None = None
    started_at: Ms | None = None
    first_token_at: Ms | None = None
    finished_at: Ms | None = None
    error_code: str | None = None
    fallback: bool = False  # answered by the type's local rules, because no OpenAI key is stored
    # None: the cache was not used; after a hit the text is another job's.
    looked_up: CacheLookup | None = None
    ttl: int | None = None  # seconds since 1970

    @property
    def is_exact(self) -> bool:
        """Whether the provider's final event was received, so that the text is complete.

        The usage is the provider's too, unless it did not count (`estimated`).
        """
        return self.status in (Status.COMPLETED, Status.INCOMPLETE) or (self.usage is not None and not self.usage.estimated)
