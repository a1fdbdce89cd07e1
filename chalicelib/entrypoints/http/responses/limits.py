"""JSON of the limits of models and job types. The field names are public: see docs/api.md."""

from __future__ import annotations

from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.responses.jobs import Shape
from chalicelib.services.limits.stage_limits import ModelUse, TypeUse, WaitingJobs


def model(use: ModelUse) -> Shape:
    """The limits of a model that hold now, of a minute; null: no such limit is known."""
    limit = use.limit
    return {
        "model": limit.model,
        "requests": use.requests,
        "tokens": use.tokens,
        "configured": {"requests": limit.configured_requests, "tokens": limit.configured_tokens},
        "source": limit.source.value if limit.source is not None else None,
        "used": {"requests": use.requests_used, "tokens": use.tokens_used},
        "blocked_until": rfc3339(limit.blocked_until),
        "waiting": waiting(use.waiting),
    }


def job_type(use: TypeUse) -> Shape:
    """The limits of a job type; null: there is no such limit."""
    limits = use.kind.limits
    return {
        "job_type": use.kind.name,
        "per_minute": limits.per_minute if limits is not None else None,
        "concurrency": limits.concurrency if limits is not None else None,
        "running": use.running,
        "starts": use.starts,
        "waiting": waiting(use.waiting),
    }


def waiting(jobs: WaitingJobs) -> Shape:
    """Jobs that wait: of the key's tenant by lane, of the others as one sum, and with a key of all tenants by tenant."""
    by_tenant = dict(jobs.by_tenant) if jobs.by_tenant is not None else None
    return {**jobs.by_lane, "others": jobs.others, "by_tenant": by_tenant, "more": jobs.more}
