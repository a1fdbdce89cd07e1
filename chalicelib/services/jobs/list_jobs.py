"""A page of jobs, newest first: one filter is answered by an index, the others narrow it within a bounded amount of work."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import Detail, Forbidden, InvalidRequest
from chalicelib.domain.ids import is_job_id, job_id_of_row, row_of_job_id
from chalicelib.domain.jobs.index_keys import LISTED_BY_END, sort_key
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.units import Ms
from chalicelib.ports import JobQuery, Jobs

MAX_EVALUATED = 2_000  # rows looked at for one page, whatever matches
READ_AT_ONCE = 100

RowCount = Callable[[str, str], int | None]  # how many rows a batch of a tenant has, None if there is none
PageReader = Callable[[JobQuery], tuple[list[str], str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What is asked for; all that are given must match."""

    status: str | None = None
    type: str | None = None
    priority: str | None = None
    batch: str | None = None
    user: str | None = None
    tag: str | None = None
    dedupe_key: str | None = None
    model: str | None = None
    error_code: str | None = None
    tenant: str | None = None
    since: Ms | None = None
    until: Ms | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`scanned_until`: creation time of the last row looked at, None at the end of the list."""

    jobs: list[Job]
    next_cursor: str | None
    scanned_until: Ms | None


def list_jobs(jobs: Jobs, caller: Caller, filters: Filters, limit: int, cursor: str | None, rows_of: RowCount | None = None) -> Page:
    """One page for `caller`: users see their own jobs, operators their tenant's. The ids of a batch are computed, if `rows_of` can say how
    many there are.

    Raises:
        Forbidden: another tenant's are asked for, with a key of one tenant.
        InvalidRequest: the cursor is not one of this query's.
    """
    query = _query(caller, filters)
    seal = sha256(json.dumps([asdict(filters), caller.tenant, caller.user], sort_keys=True).encode()).hexdigest()[:12]
    query = replace(query, before=_decode_cursor(cursor, seal))
    pages: PageReader = jobs.page
    if filters.batch is not None and rows_of is not None:
        query = replace(query, state=None)
        pages = _rows(filters.batch, rows_of(query.tenant, filters.batch) or 0)
    by_end = query.user is None and query.state in LISTED_BY_END
    found: list[Job] = []
    evaluated, last, before = 0, None, query.before
    while evaluated < MAX_EVALUATED:
        ids, before = pages(replace(query, before=before, limit=READ_AT_ONCE))
        for job in jobs.get_many(ids):
            evaluated, last = evaluated + 1, job
            if caller.may_see(job) and matches(job, filters) and _is_of(job, query):
                found.append(job)
                if len(found) == limit:
                    at_end = before is None and job.id == ids[-1]
                    return Page(
                        jobs=found,
                        next_cursor=None if at_end else _encode_cursor(sort_key(job, by_end=by_end), seal),
                        scanned_until=job.created_at,
                    )
        if before is None:
            return Page(jobs=found, next_cursor=None, scanned_until=None)
    return Page(jobs=found, next_cursor=_encode_cursor(before, seal) if before else None, scanned_until=last.created_at if last else None)


def _query(caller: Caller, filters: Filters) -> JobQuery:
    user = caller.user if caller.role == Role.USER else filters.user
    tenant = filters.tenant or caller.tenant
    if tenant != caller.tenant and not caller.all_tenants:
        raise Forbidden(f"This key lists the jobs of {caller.tenant} only.")
    indexed = filters.status not in (None, Status.COMPLETED) and user is None
    return JobQuery(tenant=tenant, user=user, state=filters.status if indexed else None, since=filters.since, until=filters.until)


def _rows(batch: str, total: int) -> PageReader:
    """Pages of the rows of a batch, the last first."""

    def page(query: JobQuery) -> tuple[list[str], str | None]:
        end = min(total, row_of_job_id(query.before)) if query.before and is_job_id(query.before) else total
        start = max(0, end - query.limit)
        ids = [job_id_of_row(batch, row) for row in reversed(range(start, end))]
        return ids, ids[-1] if start else None

    return page


def _is_of(job: Job, query: JobQuery) -> bool:
    """What an index takes care of, and computed ids do not."""
    begun = query.since is None or job.created_at >= query.since
    return job.tenant == query.tenant and begun and (query.until is None or job.created_at < query.until)


def matches(job: Job, filters: Filters) -> bool:
    """Whether a job is what the filters ask for; of bounds of time and of the tenant the query has taken care."""
    pairs = (
        (filters.status, job.status.value),
        (filters.type, job.type),
        (filters.priority, job.lane),
        (filters.batch, job.batch_id),
        (filters.user, job.user),
        (filters.dedupe_key, job.dedupe_key),
        (filters.model, job.model),
        (filters.error_code, job.error.code if job.error else None),
    )
    return all(wanted is None or wanted == value for wanted, value in pairs) and (filters.tag is None or filters.tag in job.tags)


def _encode_cursor(before: str, seal: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([seal, before]).encode()).decode().rstrip("=")


def _decode_cursor(cursor: str | None, seal: str) -> str | None:
    """The place that a cursor of this very query names."""
    if not cursor:
        return None
    try:
        known, before = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError):
        known, before = None, None
    if known != seal or not isinstance(before, str):
        raise InvalidRequest(details=(Detail("cursor", "is not a cursor of this query; begin without one"),))
    return before
