"""List jobs, newest first. An index answers one filter; a bounded scan applies the others."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256

from chalicelib.domain import json_limits
from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import Detail, Forbidden, InvalidRequest
from chalicelib.domain.ids import is_job_id, job_id_of_row, row_of_job_id
from chalicelib.domain.jobs.index_keys import LISTED_BY_END, sort_key
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.units import Ms
from chalicelib.ports import JobQuery, Jobs
from chalicelib.services.load_jobs import load_readable_jobs
from chalicelib.services.log import Log

MAX_EVALUATED = 2_000  # records read for one page, whether they match or not
READ_SIZE = 100  # records read together
# The filters that are in the hash of a cursor even if they are not set. Never change this set: cursors
# are kept by clients and in bulk operations, and an older version of the code reads and writes them.
ALWAYS_HASHED = frozenset(
    ("status", "type", "priority", "batch", "user", "tag", "dedupe_key", "model", "error_code", "tenant", "since", "until")
)

RowCount = Callable[[str, str], int | None]  # rows of (tenant, batch id); None: no such batch
PageReader = Callable[[JobQuery], tuple[list[str], str | None]]  # ids, next `before`


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """The filters of a list; a job must match all that are set."""

    status: str | None = None
    type: str | None = None
    priority: str | None = None
    batch: str | None = None
    user: str | None = None
    tag: str | None = None
    dedupe_key: str | None = None
    model: str | None = None
    error_code: str | None = None
    tenant: str | None = None  # None: the caller's
    since: Ms | None = None  # created at or after
    until: Ms | None = None  # created before


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a list. It may be short, or empty, and still have a next page."""

    jobs: list[Job]
    next_cursor: str | None  # None: the end of the list
    scanned_until: Ms | None  # creation time of the last record read; None: the end of the list


def list_jobs(
    jobs: Jobs, log: Log, caller: Caller, filters: Filters, limit: int, cursor: str | None, row_count: RowCount | None = None
) -> Page:
    """Return one page for `caller`: users see their own jobs, operators those of their tenant.

    Records that another version of the code wrote and this one cannot read are left out.

    Args:
        row_count: with it, the jobs of a batch are found by their computed ids instead of an index.

    Raises:
        Forbidden: the caller's key does not cover the requested tenant.
        InvalidRequest: the cursor does not belong to this query.
    """
    query = _query(caller, filters)
    query_hash = _hash_of(filters, caller)
    query = replace(query, before=_decode_cursor(cursor, query_hash))
    read_page: PageReader = jobs.page
    if filters.batch is not None and row_count is not None:
        query = replace(query, state=None)
        read_page = _row_pages(filters.batch, row_count(query.tenant, filters.batch) or 0)
    by_end = query.user is None and query.state in LISTED_BY_END
    found: list[Job] = []
    evaluated, last, before = 0, None, query.before
    while evaluated < MAX_EVALUATED:
        ids, before = read_page(replace(query, before=before, limit=READ_SIZE))
        loaded = load_readable_jobs(jobs, log, ids)
        evaluated += len(loaded.unreadable)
        for job in loaded.jobs:
            evaluated, last = evaluated + 1, job
            if caller.may_see(job) and matches(job, filters) and _is_in_query(job, query):
                found.append(job)
                if len(found) == limit:
                    at_end = before is None and job.id == ids[-1]
                    return Page(
                        jobs=found,
                        next_cursor=None if at_end else _encode_cursor(sort_key(job, by_end=by_end), query_hash),
                        scanned_until=job.created_at,
                    )
        if before is None:
            return Page(jobs=found, next_cursor=None, scanned_until=None)
    cursor = _encode_cursor(before, query_hash) if before else None
    return Page(jobs=found, next_cursor=cursor, scanned_until=last.created_at if last else None)


def _query(caller: Caller, filters: Filters) -> JobQuery:
    user = caller.user if caller.role == Role.USER else filters.user
    tenant = filters.tenant or caller.tenant
    if tenant != caller.tenant and not caller.all_tenants:
        raise Forbidden(f"This key lists the jobs of {caller.tenant} only.")
    indexed = filters.status not in (None, Status.COMPLETED) and user is None
    return JobQuery(tenant=tenant, user=user, state=filters.status if indexed else None, since=filters.since, until=filters.until)


def _row_pages(batch: str, total: int) -> PageReader:
    """Return a reader of the job ids of a batch's rows, from the last row to the first."""

    def page(query: JobQuery) -> tuple[list[str], str | None]:
        end = min(total, row_of_job_id(query.before)) if query.before and is_job_id(query.before) else total
        start = max(0, end - query.limit)
        ids = [job_id_of_row(batch, row) for row in reversed(range(start, end))]
        return ids, ids[-1] if start else None

    return page


def _is_in_query(job: Job, query: JobQuery) -> bool:
    """Check the tenant and the times, which an index has applied, but computed ids have not."""
    recent = query.since is None or job.created_at >= query.since
    return job.tenant == query.tenant and recent and (query.until is None or job.created_at < query.until)


def matches(job: Job, filters: Filters) -> bool:
    """Whether a job matches the filters, except those for tenant and time, which the query applies."""
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


def _hash_of(filters: Filters, caller: Caller) -> str:
    """Return the hash of a query for its cursors.

    Every version of the code makes the same one, so a filter that another version does not have
    counts only if it is set.
    """
    given = {name: value for name, value in asdict(filters).items() if name in ALWAYS_HASHED or value is not None}
    return sha256(json.dumps([given, caller.tenant, caller.user], sort_keys=True).encode()).hexdigest()[:12]


def _encode_cursor(before: str, query_hash: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([query_hash, before]).encode()).decode().rstrip("=")


def _decode_cursor(cursor: str | None, query_hash: str) -> str | None:
    """Return the position in a cursor of this query; None without a cursor."""
    if not cursor:
        return None
    try:
        encoded_hash, before, *_ = json_limits.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError):
        encoded_hash, before = None, None
    if encoded_hash != query_hash or not isinstance(before, str):
        raise InvalidRequest(details=(Detail("cursor", "is not a cursor of this query; start without one"),))
    return before
