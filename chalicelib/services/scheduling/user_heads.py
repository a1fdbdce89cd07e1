"""The first jobs of a line by user, as a loop of the scheduler reads them.

A reading takes a bounded number of requests. If they reach all users who wait, the fair queue decides
whose turn it is. If there are more, a part of the users is served at a time: each of them some
jobs, then the next part is read, and after the last the first one again. So with a hundred thousand
users who wait a round costs as much as with a hundred, and each has its turn. Whose turn it is is
stored with the virtual time of the tenant, so the next loop goes on there.
"""

from __future__ import annotations

from collections import Counter

from chalicelib.domain.jobs.index_keys import same_lane
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.units import Ms
from chalicelib.services.scheduling.context import SchedulingContext
from chalicelib.services.scheduling.heads import Heads
from chalicelib.services.scheduling.user_lines import UserScan, scan_users

MAX_READS = 16  # requests of one reading: pages of a line by user
TURN_JOBS = 2  # of each user in one part, if not all users can be read at once
FEW = 13  # jobs of a user's lane: if fewer are left, and there are perhaps more, it is read again; one round releases less of it


class UserHeads(Heads):
    """The first jobs of the users of a tenant.

    Attributes:
        turn: the place behind which the part of the users begins that is served now; None: at the beginning.
    """

    def __init__(self, turn: str | None = None) -> None:
        super().__init__()
        self.turn = turn
        self._next: str | None = None  # where the next part begins
        self._is_part = turn is not None
        self._served: Counter[str] = Counter()  # jobs of users that were released in this part
        self._cut: dict[str, int] = {}  # the lanes of users that have perhaps more jobs: how many are left of those that were read

    def is_stale(self, now: Ms) -> bool:
        return super().is_stale(now) or (not self._is_part and any(left < FEW for left in self._cut.values()))

    def read(self, ctx: SchedulingContext, cause: str, tenant: str, now: Ms) -> None:
        """Read the first jobs of each user, or of the next part of them. At most twice `MAX_READS` requests."""
        self._forget_released(now)
        if self._is_part and not self.jobs and self.read_at >= 0:  # each user of this part had its turn
            self.turn, self._served = self._next, Counter()
        found = self._scan(ctx, cause, tenant)
        if not found.seen and self.turn is not None:  # nobody stands behind there any more
            self.turn, self._served = None, Counter()
            found = self._scan(ctx, cause, tenant)
        self._next, self._is_part = found.end, self.turn is not None or found.end is not None
        self._cut = found.cut
        self.jobs = self._of_this_turn(found.jobs) if self._is_part else found.jobs
        self.read_at, self.is_empty = now, found.seen == 0

    def release(self, job: HeldJob, now: Ms) -> int:
        lane = same_lane(job.place)
        if lane in self._cut:
            self._cut[lane] -= 1
        if self._is_part:
            self._served[job.user] += 1
            self.jobs = self._of_this_turn(self.jobs)
        return super().release(job, now)

    def _scan(self, ctx: SchedulingContext, cause: str, tenant: str) -> UserScan:
        return scan_users(ctx.lines, cause, tenant, self.turn, MAX_READS, self._released)

    def _of_this_turn(self, jobs: list[HeldJob]) -> list[HeldJob]:
        """Return the jobs of users who have not had their turn: as many of each lane as it may still be."""
        lanes: Counter[str] = Counter()
        found = []
        for job in jobs:
            lane = same_lane(job.place)
            lanes[lane] += 1
            if lanes[lane] <= TURN_JOBS - self._served[job.user]:
                found.append(job)
        return found
