"""Find the users who have jobs in a line by user, with the first jobs of each, lane by lane.

The jobs of a user are together in the index, so one request goes past all that a user has. Nothing
else says who waits: there is no list of users that a hold would have to write, and none to clean up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.jobs.index_keys import behind_lane, same_lane
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.domain.limits.tenant_lines import lines_to_read
from chalicelib.ports import Lines

PAGE_SIZE = 30
ENOUGH = 15  # jobs of a user's lane: then the rest of it is passed by
MAX_PAGES = 5  # of one user's lane, if most of its jobs are passed over


class FirstContext(Protocol):
    """What looking for the jobs of a tenant needs."""

    @property
    def lines(self) -> Lines: ...
    def limits_of(self, tenant: str) -> TenantLimits: ...


def first_held(ctx: FirstContext, cause: str, tenant: str, limit: int) -> list[HeldJob]:
    """Return some jobs of a tenant that wait for a cause, up to `limit`. One request, or two if it shares by user, or did.

    Raises:
        Unavailable, UnreadableRecord: the limits of the tenant, or the jobs, could not be read.
    """
    found: list[HeldJob] = []
    for by_user in lines_to_read(ctx.limits_of(tenant), cause):
        if len(found) < limit:
            found += ctx.lines.held(cause, tenant, limit - len(found), by_user=by_user)
    return found


@dataclass(frozen=True, slots=True)
class UserScan:
    """A part of a line by user."""

    jobs: list[HeldJob]  # the first ones of each lane of each user, in the order of the line
    cut: dict[str, int]  # the lanes of users that have perhaps more: how many jobs of it were read
    seen: int  # jobs that were read, those passed over included
    end: str | None  # where to go on; None: nobody stands there


def scan_users(lines: Lines, cause: str, tenant: str, after: str | None, pages: int, passed_over: Container[str] = ()) -> UserScan:
    """Read on in a line by user. A request for each page, up to `pages`.

    Args:
        after: the place behind which it begins; None: at the beginning.
        passed_over: ids of jobs that are not returned.
    """
    found: dict[str, HeldJob] = {}
    read, taken, cut = Counter[str](), Counter[str](), dict[str, int]()  # by the lane of a user
    seen = 0
    for _ in range(pages):
        page = lines.held(cause, tenant, PAGE_SIZE, after, by_user=True)
        seen += len(page)
        for job in page:
            if job.job_id not in passed_over and job.job_id not in found:
                found[job.job_id] = job
                taken[same_lane(job.place)] += 1
        if len(page) < PAGE_SIZE:
            return UserScan(list(found.values()), cut, seen, None)
        place = page[-1].place
        lane = same_lane(place)
        read[lane] += 1
        cut[lane] = taken[lane]
        after = behind_lane(place) if taken[lane] >= ENOUGH or read[lane] >= MAX_PAGES else place
    return UserScan(list(found.values()), cut, seen, after)
