"""JSON of pauses and queues. The field names are public: see docs/api.md."""

from __future__ import annotations

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.limits.pauses import Pause
from chalicelib.domain.units import Ms, rfc3339
from chalicelib.entrypoints.http.responses.jobs import Shape


def pause(shown: Pause, caller: Caller) -> Shape:
    """A pause. Author and reason of one by an operator of all tenants are shown to such keys only."""
    is_hidden = shown.by_stage and not caller.all_tenants
    scope = shown.scope
    return {
        "pause_id": shown.id,
        "name": scope.text,
        "scope": {"tenant": scope.tenant, "type": scope.type, "lane": scope.lane, "batch": scope.batch},
        "tenant": scope.tenant,
        "by_operator": shown.by_stage,
        "by": None if is_hidden else shown.by,
        "reason": None if is_hidden else shown.reason,
        "paused_at": rfc3339(shown.since),
        "until": rfc3339(shown.until),
    }


def job_pause(job: Job, now: Ms, *, content: bool) -> Shape | None:
    """The pause of a job itself; null if it is not paused. A viewer sees no words of users."""
    if job.pause is None or job.pause.is_over(now):
        return None
    return {
        "by": job.pause.by,
        "reason": job.pause.reason if content else None,
        "paused_at": rfc3339(job.pause.since),
        "until": rfc3339(job.pause.until),
    }
