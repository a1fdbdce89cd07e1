"""The change stream of the table `jobs`, as job records before and after each change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chalicelib.adapters.dynamodb.jobs.item import job_of_raw
from chalicelib.domain.errors import UnreadableRecord
from chalicelib.domain.jobs.job import Job

Change = tuple[str, Job | None, Job | None]


def changes(records: list[dict[str, Any]]) -> Iterator[Change]:
    """Yield each change as `(job id, before, after)`; `before` is None for a new job.

    Deletions, which TTL makes too, are left out. `after` is None if the new image cannot be
    decoded, such as one of another version of the code. An old image that cannot be decoded is
    None like that of a new job: consumers then treat the change as one of status, which is safe to
    repeat.
    """
    for record in records:
        if record.get("eventName") == "REMOVE":
            continue
        images = record.get("dynamodb") or {}
        job_id = str(images.get("Keys", {}).get("id", {}).get("S", record.get("eventID", "")))
        after = _job_if_readable(images.get("NewImage"))
        yield job_id, _job_if_readable(images.get("OldImage")) if after is not None else None, after


def _job_if_readable(image: dict[str, Any] | None) -> Job | None:
    try:
        return job_of_raw(image) if image else None
    except UnreadableRecord:
        return None
