"""JSON of bulk operations. The field names are public: see docs/api.md."""

from __future__ import annotations

from chalicelib.domain.jobs.bulk_operation import BulkOperation
from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.responses.jobs import Shape


def bulk(operation: BulkOperation) -> Shape:
    """A bulk operation with its progress."""
    return {
        "bulk_id": operation.id,
        "action": operation.action.value,
        "status": "running" if operation.finished_at is None else "completed",
        "priority": operation.lane,
        "reason": operation.reason,
        "pause_until": rfc3339(operation.until),
        "filter": {name: rfc3339(value) if name in ("since", "until") else value for name, value in operation.filters.items()},
        "ids": len(operation.ids) or None,
        "matched": operation.matched,
        "done": operation.done,
        "skipped": operation.skipped,
        "failed": operation.failed,
        "not_found": operation.not_found,
        "problems": [{"job_id": job_id, "code": code} for job_id, code in operation.problems],
        "created_by": operation.created_by,
        "created_at": rfc3339(operation.created_at),
        "updated_at": rfc3339(operation.updated_at),
        "finished_at": rfc3339(operation.finished_at),
    }
