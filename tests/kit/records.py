"""Valid records for tests of stores and of code that reads stored records.

Each function takes changes by keyword.
"""

from __future__ import annotations

import random
import string
from typing import Any

from ulid import ULID

from chalicelib.bootstrap import Container
from chalicelib.domain.batches.batch import NOT_STARTED, Batch, BatchAction
from chalicelib.domain.jobs.bulk_operation import BulkAction, BulkOperation, BulkPage, JobRef
from chalicelib.domain.jobs.job import Job, JobError, Status, Usage
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from chalicelib.domain.limits.pauses import Pause, PauseScope, TenantPauses, pause_id
from chalicelib.domain.notifications.delivery import Delivery, DeliveryAttempt, delivery_id
from chalicelib.domain.notifications.recipients import Channel, Recipient

NOW = 1_763_800_000_000
DAY = 86_400_000
WEEK = 7 * DAY


def incompressible_text(length: int) -> str:
    """Text that does not compress; the same for the same length."""
    return "".join(random.Random(7).choices(string.printable + "äöü€👍", k=length))


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
        "invalid_answer": "The answer is empty.",
        "tags": ("nightly", "reports"),
        "ttl": NOW // 1000 + 7 * 86_400,
    }
    return job(**(values | changes))


def completed_job(output: int = 300, streaming: int = 3_000, first: int = 400, **changes: Any) -> Job:
    """A completed job with its output tokens, and its streaming and first-token times in ms."""
    started_at = changes.pop("at", NOW)
    values: dict[str, Any] = {
        "status": Status.COMPLETED,
        "attempt": 1,
        "started_at": started_at,
        "first_token_at": started_at + first,
        "finished_at": started_at + first + streaming,
        "usage": Usage(input=10, output=output),
    }
    return job(**(values | changes))


def job_spec(prompt: str = "Say hello.", **changes: Any) -> JobSpec:
    return JobSpec(prompt=prompt, config=JobConfig(model="gpt-4o-mini", max_tokens=100), **changes)


def batch(**changes: Any) -> Batch:
    """A batch that is locked and has a pending action."""
    values: dict[str, Any] = {
        "id": Container.new_batch_id(),
        "tenant": "acme",
        "user": "ann",
        "key_id": "key_1",
        "role": "user",
        "total": 30,
        "created_at": NOW,
        "updated_at": NOW,
        "name": "night",
        "delay": 2.5,
        "failure_tolerance": 0.0,
        "actions": (BatchAction(bulk_id="bulk_1", action=BulkAction.CANCEL, states=NOT_STARTED, not_before=NOW + 5),),
        "locked_until": NOW + 5,
    }
    return Batch(**(values | changes))


def bulk_operation(**changes: Any) -> BulkOperation:
    """A bulk operation that is locked and in the middle of a page."""
    values: dict[str, Any] = {
        "id": f"bulk_{ULID()}",
        "tenant": "acme",
        "created_by": "olga",
        "action": BulkAction.SET_PRIORITY,
        "created_at": NOW,
        "updated_at": NOW,
        "lane": "high",
        "ids": (new_id(), new_id()),
        "filters": {"status": "queued", "since": NOW - 5},
        "page": BulkPage(jobs=(JobRef(new_id(), 2, 1),), position=25, cursor="c", last=True),
        "locked_until": NOW + 5,
        "matched": 3,
        "problems": ((new_id(), "job_not_found"),),
    }
    return BulkOperation(**(values | changes))


def delivery(**changes: Any) -> Delivery:
    """A pending webhook delivery with two attempts."""
    owner = changes.pop("owner", new_id())
    address = changes.pop("address", "https://hooks.example.com/x")
    values: dict[str, Any] = {
        "id": delivery_id(f"msg_{owner}", Recipient(Channel.WEBHOOK, address)),
        "owner": owner,
        "tenant": "acme",
        "channel": Channel.WEBHOOK,
        "address": address,
        "event": "job.completed",
        "message_id": f"msg_{owner}",
        "subject": "Headrace: done",
        "payload": '{"id":"msg_ü"}',
        "created_at": NOW,
        "due_at": NOW,
        "expires_at": NOW + DAY,
        "recheck_at": NOW + 60_000,
        "attempts": (DeliveryAttempt(at=NOW, ms=5, status=500, error="the receiver answered 500"), DeliveryAttempt(at=NOW, ms=5)),
    }
    return Delivery(**(values | changes))


def pause(scope: PauseScope | None = None, **changes: Any) -> Pause:
    """A pause of a type for the tenant acme, without an end."""
    scope = scope or PauseScope(tenant="acme", type="export")
    values: dict[str, Any] = {"id": pause_id(scope, by_stage=False), "scope": scope, "reason": "full disk", "by": "ann", "since": NOW}
    return Pause(**(values | changes))


def pauses_of(tenant: str | None, *pauses: Pause) -> TenantPauses:
    """The record of a tenant with these pauses, or with one that ends and one of a batch."""
    made = pauses or (
        pause(PauseScope(tenant=tenant, type="export", lane="low"), until=NOW + DAY),
        pause(PauseScope(tenant=tenant, batch="batch_01J0000000000000000000000"), by_stage=True),
    )
    return TenantPauses(tenant=tenant or "", pauses=made, version=1)
