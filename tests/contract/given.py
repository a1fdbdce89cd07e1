"""Test data for the contract tests of the stores."""

from __future__ import annotations

from typing import Any

from ulid import ULID

from chalicelib.domain.jobs.job import Job, JobError, Status, Usage

NOW = 1_763_800_000_000
DAY = 86_400_000


def new_id(at: int = NOW) -> str:
    return f"job_{ULID.from_timestamp(at / 1000)}"


def job(**changes: Any) -> Job:
    """A job record as it is created, with a new id."""
    at = changes.get("created_at", NOW)
    values: dict[str, Any] = {
        "id": new_id(at),
        "tenant": "acme",
        "user": "ann",
        "key_id": "key_1",
        "type": "general",
        "lane": "normal",
        "model": "gpt-4o-mini",
        "status": Status.QUEUED,
        "created_at": at,
        "queued_at": at,
        "updated_at": at,
        "expires_at": at + DAY,
        "retry_until": at + DAY,
        "due_at": at + 120_000,
    }
    return Job(**(values | changes))


def full_job(**changes: Any) -> Job:
    """A job record with every field set, of usual lengths."""
    values: dict[str, Any] = {
        "status": Status.FAILED,
        "generation": 3,
        "attempt": 3,
        "tries": 3,
        "version": 9,
        "due_at": None,
        "started_at": NOW + 900,
        "first_token_at": NOW + 1_500,
        "finished_at": NOW + 20_000,
        "owner": f"{ULID.from_timestamp(NOW / 1000)}#a1b2c3",
        "error": JobError(
            code="provider_rate_limited",
            error_class="rate_limit",
            retryable=True,
            message="OpenAI's rate limit was reached; the job waits as long as OpenAI asked.",
            suggestion="Nothing to do: it is retried.",
            attempt=3,
            provider_status=429,
        ),
        "length": 4_000,
        "usage": Usage(input=2_000, cached=512, output=1_000),
        "cost": 900_000,
        "estimated_cost": 1_000_000,
        "max_cost": 3_000_000,
        "estimated_ms": 20_000,
        "fallback_models": ("gpt-4o", "gpt-4.1-mini"),
        "attempt_model": "gpt-4o",
        "tags": ("nightly", "reports"),
        "ttl": NOW // 1000 + 7 * 86_400,
    }
    return job(**(values | changes))
