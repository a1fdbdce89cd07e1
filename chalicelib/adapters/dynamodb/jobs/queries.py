"""Listing jobs: which index answers a query, and the bounds of its sort key.

Ids are `job_<ULID>`, whose first ten characters are the time of creation, so bounds of creation are
bounds of the key. A partition of a tenant may have several shards; they are merged by the sort key. A
cursor is a sort key, so it stays valid when the shards become more.

The index alone cannot answer three queries: queued and processing jobs share a partition of
`by_state`, completed jobs are not in it, and `by_user` has no state. For these the statuses are read
from the job records and compared, on at most `MAX_PAGES` pages of the index. The result may then be
short or empty and still have a cursor.
"""

from __future__ import annotations

from typing import Any

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.jobs.item import JobItem, state_key, tenant_key, user_key
from chalicelib.adapters.dynamodb.jobs.shards import ShardsOf, query_shards
from chalicelib.domain.ids import time_digits
from chalicelib.domain.jobs.index_keys import LISTED_BY_END, shard_keys
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.units import Ms
from chalicelib.ports import JobQuery

PREFIX = "job_"
MAX_PAGES = 10
MAX_CURSOR_LENGTH = 200
AFTER_ALL = "\U0010ffff"


class JobQueries:
    def __init__(self, jobs: type[JobItem], shards_of: ShardsOf) -> None:
        self._jobs = jobs
        self._shards_of = shards_of

    def page(self, query: JobQuery) -> tuple[list[str], str | None]:
        found: list[str] = []
        before = query.before
        for _ in range(MAX_PAGES):
            keys, more = self._keys(query, before, query.limit)
            before = keys[-1] if keys else before
            found += self._matching(query, keys)
            if not more and len(found) <= query.limit:
                return [_job_id(key) for key in found], None
            if len(found) >= query.limit:
                found = found[: query.limit]
                before = found[-1]
                break
        return [_job_id(key) for key in found], before

    def _keys(self, query: JobQuery, before: str | None, limit: int) -> tuple[list[str], bool]:
        """Return the sort keys of one request for each shard, and whether there are more.

        It asks for one more than needed."""
        index, partition, sort_key = self._index(query)
        if before and not (before.isascii() and before.isprintable() and len(before) <= MAX_CURSOR_LENGTH):
            return [], False  # no key of this index: callers may send any text as a cursor
        low, high = _bounds(query, before)
        if low > high:
            return [], False
        shards = shard_keys(partition, self._shards_of(query.tenant))
        rows = query_shards(index, shards, sort_key.between(low, high), limit + 1, _sort_key, newest_first=True)
        keys = [_sort_key(item) for item in rows]
        return keys[:limit], len(keys) > limit

    def _index(self, query: JobQuery) -> tuple[Any, str, Any]:
        jobs = self._jobs
        if query.user is not None:
            return jobs.by_user, user_key(query.tenant, query.user), jobs.id
        if query.state is not None and query.state != Status.COMPLETED:
            return jobs.by_state, state_key(query.tenant, Status(query.state)), jobs.g_sk
        return jobs.by_tenant, tenant_key(query.tenant), jobs.id

    def _matching(self, query: JobQuery, keys: list[str]) -> list[str]:
        if _by_end(query):
            return [key for key in keys if _created_within(_job_id(key), query)]
        if not _needs_statuses(query):
            return keys
        jobs = dynamodb.batch_get(self._jobs, ((_job_id(key),) for key in keys), attributes=["id", "status"])
        matching = {job.id for job in jobs if job.status == query.state}
        return [key for key in keys if _job_id(key) in matching]


def first_id(at: Ms) -> str:
    """Return the smallest id that a job of this moment can have."""
    return PREFIX + time_digits(at)


def _bounds(query: JobQuery, before: str | None) -> tuple[str, str]:
    """Return the least and the greatest sort key of the page, both inclusive as in `BETWEEN`."""
    if _by_end(query):  # a job ends after it was created, so the lower bound holds for its end too
        return f"{query.since or 0:013}", _below(before) if before else AFTER_ALL
    uppers = [*([before] if before else []), *([first_id(query.until)] if query.until is not None else [])]
    return first_id(query.since or 0), _below(min(uppers)) if uppers else AFTER_ALL


def _below(key: str) -> str:
    """Return a key just before this one: no other key of the same length lies between."""
    return f"{key[:-1]}{chr(ord(key[-1]) - 1)}~"


def _by_end(query: JobQuery) -> bool:
    return query.user is None and query.state in LISTED_BY_END


def _needs_statuses(query: JobQuery) -> bool:
    if query.state is None:
        return False
    return query.user is not None or query.state in (Status.QUEUED, Status.PROCESSING, Status.COMPLETED)


def _sort_key(item: JobItem) -> str:
    return item.g_sk or item.id


def _job_id(key: str) -> str:
    return key.rpartition("#")[2]


def _created_within(job_id: str, query: JobQuery) -> bool:
    return (query.since is None or job_id >= first_id(query.since)) and (query.until is None or job_id < first_id(query.until))
