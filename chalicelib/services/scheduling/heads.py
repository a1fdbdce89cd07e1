"""Read the first jobs of a line, lane by lane, without those that were just released.

The index follows the records a moment later, and a released job stays in it until a worker has
claimed it. So a job that was released is passed over for a while, and comes again if its wake-up
was lost.
"""

from __future__ import annotations

from chalicelib.domain.jobs.index_keys import LINE_RANKS
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.units import Ms
from chalicelib.services.scheduling.context import SchedulingContext

PAGE_SIZE = 30
MAX_PAGES = 5  # of one lane in one reading: more are hidden behind jobs that were just released
FRESH_MS = 2_000  # how long what was read is used
RELEASED_MS = 15_000  # after so long a released job counts as waiting again
REMEMBERED_MS = 600_000  # how often a job was released


class Heads:
    """The first jobs of one line."""

    turn: str | None = None  # in a line by user: see `UserHeads`

    def __init__(self) -> None:
        self.jobs: list[HeldJob] = []  # by place
        self.is_empty = False  # the index had no job of the line, not even a released one
        self.read_at: Ms = -1  # -1: not yet
        self._released: dict[str, Ms] = {}
        self._releases: dict[tuple[str, int], tuple[Ms, int]] = {}  # by job and generation: when last, and how often

    def is_stale(self, now: Ms) -> bool:
        return not 0 <= now - self.read_at < FRESH_MS or not (self.jobs or self.is_empty)

    def read(self, ctx: SchedulingContext, cause: str, tenant: str, now: Ms) -> None:
        """Read the first jobs of each lane. A request for each lane that has jobs, and one more."""
        self._forget_released(now)
        found: dict[str, HeldJob] = {}
        total, rank, after = 0, 0, ""
        for _ in range(MAX_PAGES * len(LINE_RANKS)):
            page = ctx.lines.held(cause, tenant, PAGE_SIZE, after or None)
            total += len(page)
            waiting = [job for job in page if job.job_id not in self._released]
            found |= {job.job_id: job for job in waiting}
            if len(page) < PAGE_SIZE:
                break
            rank = int(page[-1].place.partition("#")[0])
            after = page[-1].place if not waiting else f"{rank + 1}#"  # enough of this lane; on with the next
        self.jobs = sorted(found.values(), key=lambda job: job.place)
        self.read_at, self.is_empty = now, total == 0

    def release(self, job: HeldJob, now: Ms) -> int:
        """Note that a job is released. Returns how often it was, this time included."""
        self.jobs = [other for other in self.jobs if other.job_id != job.job_id]
        self._released[job.job_id] = now
        key = job.job_id, job.generation
        self._releases = {other: seen for other, seen in self._releases.items() if now - seen[0] < REMEMBERED_MS}
        count = self._releases.get(key, (now, 0))[1] + 1
        self._releases[key] = now, count
        return count

    def _forget_released(self, now: Ms) -> None:
        self._released = {job_id: at for job_id, at in self._released.items() if now - at < RELEASED_MS}
