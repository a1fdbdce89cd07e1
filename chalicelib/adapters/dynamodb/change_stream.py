"""The change stream of the table `jobs`, as job records before and after each change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chalicelib.adapters.dynamodb.jobs.item import job_of_raw
from chalicelib.domain.jobs.job import Job

Change = tuple[str, Job | None, Job | None]


def changes(records: list[dict[str, Any]]) -> Iterator[Change]:
    """Yield each change as `(job id, before, after)`; `before` is None for a new job.

    Deletions, which TTL makes too, are left out. Both records are None if an image cannot be
    decoded.
    """
    for record in records:
        if record.get("eventName") == "REMOVE":
            continue
        images = record.get("dynamodb") or {}
        job_id = str(images.get("Keys", {}).get("id", {}).get("S", record.get("eventID", "")))
        try:
            old, new = images.get("OldImage"), images["NewImage"]
            yield job_id, job_of_raw(old) if old else None, job_of_raw(new)
        except (KeyError, ValueError, TypeError, AttributeError):
            yield job_id, None, None
