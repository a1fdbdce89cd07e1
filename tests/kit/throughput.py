"""Completed jobs from which the throughput of a model is measured."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.jobs.job import Job, Status, Usage
from tests.kit.jobs import job

NOW = 1_763_800_000_000  # 2025-11-22, in ISO week 47
WEEK = 7 * 86_400_000


def completed(output: int = 300, streaming: int = 3_000, first: int = 400, **changes: Any) -> Job:
    """A job that completed in its first attempt.

    Args:
        output: Output tokens.
        streaming: Milliseconds from the first token to the end.
        first: Milliseconds from the start to the first token.
        changes: Fields of the record; `at` is the start of the attempt.
    """
    started = changes.pop("at", NOW)
    values: dict[str, Any] = {
        "status": Status.COMPLETED,
        "attempt": 1,
        "started_at": started,
        "first_token_at": started + first,
        "finished_at": started + first + streaming,
        "usage": Usage(input=10, output=output),
    }
    return job(**(values | changes))
