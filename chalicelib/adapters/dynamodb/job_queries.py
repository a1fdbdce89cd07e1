"""Listing jobs: which index answers a query, and from where to where.

Ids are `job_<ULID>`, whose first ten characters are the time of creation, so bounds of creation are bounds of the key. Two states share a
partition of `by_state` (queued and processing) and completed jobs are not in it, so there, and where a user's jobs of one state are asked
for, the heads are read and compared: in rounds, and at most `ROUNDS` of them. Such a page may be short, or empty, and still go on.
"""

from __future__ import annotations

from typing import Any

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.job_item import JobItem, state_key, tenant_key, user_key
from chalicelib.domain.jobs.index_keys import LISTED_BY_END
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.units import Ms
from chalicelib.ports import JobQuery

PREFIX = "job_"
MAX_PAGES = 10
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as ULIDs use it
LONGEST_PLACE = 200
LAST = "\U0010ffff"


class JobQueries:
    def __init__(self, heads: type[JobItem]) -> None:
        self._heads = heads

    def page(self, query: JobQuery) -> tuple[list[str], str | None]:
        found: list[str] = []
        before = query.before
        for _ in range(MAX_PAGES):
            places, more = self._places(query, before, query.limit)
            before = places[-1] if places else before
            found += self._fitting(query, places)
            if not more and len(found) <= query.limit:
                return [_id(place) for place in found], None
            if len(found) >= query.limit:
                found = found[: query.limit]
                before = found[-1]
                break
        return [_id(place) for place in found], before

    def _places(self, query: JobQuery, before: str | None, limit: int) -> tuple[list[str], bool]:
        """The places of one request in the order of its index, and whether there are more: one more than needed is asked for."""
        index, partition, place = self._index(query)
        if before and not (before.isascii() and before.isprintable() and len(before) <= LONGEST_PLACE):
            return [], False  # no place at all: callers may send any cursor
        low, high = _bounds(query, before)
        if low > high:
            return [], False
        rows = index.query(partition, place.between(low, high), scan_index_forward=False, limit=limit + 1, page_size=limit + 1)
        places = [item.g_sk or item.id for item in rows]
        return places[:limit], len(places) > limit

    def _index(self, query: JobQuery) -> tuple[Any, str, Any]:
        heads = self._heads
        if query.user is not None:
            return heads.by_user, user_key(query.tenant, query.user), heads.id
        if query.state is not None and query.state != Status.COMPLETED:
            return heads.by_state, state_key(query.tenant, Status(query.state)), heads.g_sk
        return heads.by_tenant, tenant_key(query.tenant), heads.id

    def _fitting(self, query: JobQuery, places: list[str]) -> list[str]:
        if _by_end(query):
            return [place for place in places if _created_within(_id(place), query)]
        if not _needs_heads(query):
            return places
        heads = dynamodb.batch_get(self._heads, ((_id(place),) for place in places), attributes=["id", "status"])
        fitting = {head.id for head in heads if head.status == query.state}
        return [place for place in places if _id(place) in fitting]


def first_id(at: Ms) -> str:
    """The smallest id that a job of this moment can have."""
    return PREFIX + "".join(ALPHABET[at >> shift & 31] for shift in range(45, -1, -5))


def _bounds(query: JobQuery, before: str | None) -> tuple[str, str]:
    """The least and the greatest place, both inclusive as `BETWEEN` is, of what may be on the page."""
    if _by_end(query):  # a job ends after it was created: the lower bound holds for its end, too
        return f"{query.since or 0:013}", _below(before) if before else LAST
    uppers = [*([before] if before else []), *([first_id(query.until)] if query.until is not None else [])]
    return first_id(query.since or 0), _below(min(uppers)) if uppers else LAST


def _below(place: str) -> str:
    """A place just before this one: no other of the same length lies between."""
    return f"{place[:-1]}{chr(ord(place[-1]) - 1)}~"


def _by_end(query: JobQuery) -> bool:
    return query.user is None and query.state in LISTED_BY_END


def _needs_heads(query: JobQuery) -> bool:
    if query.state is None:
        return False
    return query.user is not None or query.state in (Status.QUEUED, Status.PROCESSING, Status.COMPLETED)


def _id(place: str) -> str:
    return place.rpartition("#")[2]


def _created_within(job_id: str, query: JobQuery) -> bool:
    return (query.since is None or job_id >= first_id(query.since)) and (query.until is None or job_id < first_id(query.until))
