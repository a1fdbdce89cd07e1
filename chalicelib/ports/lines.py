"""Lines of held jobs, and the shards of the scheduler that serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.units import Ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """That a tenant has, or had a moment ago, jobs that are held for a cause.

    Jobs of a tenant that shares by user stand in a line of their own, by user, then lane and age. A
    tenant has both lines while the jobs are released that were held before that was set, or unset.
    """

    cause: str
    tenant: str
    touched_at: Ms  # when a job was last held in it
    position: float | None = None  # its virtual time in the fair queue of the cause; None: not stored yet
    by_user: bool = False
    turn: str | None = None  # by user: after which place those users stand whose turn it is; None: at the beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A shard of the scheduler: which loop serves it, and until when that loop is alive; or until when
    it is asleep, because nothing may start sooner.
    """

    number: int
    owner: str
    until: Ms  # 0: it is asleep
    asleep_until: Ms = 0  # 0: it is served, or its loop has died
    since: Ms = 0  # when it went to sleep, after a look at every line

    def is_served(self, now: Ms) -> bool:
        return now < self.until

    def has_died(self, now: Ms) -> bool:
        """Whether the loop has ended without saying so."""
        return not self.asleep_until and self.until <= now


class Lines(Protocol):
    """Stores which lines there are, and reads the jobs in them from an index of the job records.

    The row of a line is written before the record of a job that is held in it, so a line with a job
    always has a row. The index follows the records a moment later.
    """

    def touch(self, cause: str, tenant: str, now: Ms, *, by_user: bool = False) -> bool:
        """Note that a job is about to be held. Returns whether the line is new. One request."""

    def rows(self, bucket: int) -> list[Line]:
        """Return the lines of a bucket, read consistently; not those that cannot be read. One request for each 1 MB."""

    def held(self, cause: str, tenant: str, limit: int, after: str | None = None, *, by_user: bool = False) -> list[HeldJob]:
        """Return the first jobs of a line, in their order, `after` a place. One request for each shard of the tenant."""

    def count(
        self, cause: str, tenant: str, limit: int, *, before: str | None = None, lane: str | None = None, by_user: bool = False
    ) -> int:
        """Count the jobs of a line, up to `limit` of them: those `before` a place, or those of a lane. One request for each
        shard of the tenant.

        In a line by user those of the same user before the place; lanes cannot be counted there.
        """

    def remove(self, line: Line) -> bool:
        """Delete the row of a line if no job has been held in it since it was read. Returns whether it is gone."""

    def save_position(self, line: Line, position: float, turn: str | None = None) -> None:
        """Store the virtual time of a tenant in a line, and in one by user whose turn it is, if its row exists."""

    def forget(self, job: Job) -> None:
        """Take a job out of the index that is in no line any more, if it is unchanged since it was read.

        An earlier version of the code, which knows no lines, leaves it there when it claims a job.
        """

    def shard(self, number: int) -> Shard | None:
        """Return who serves a shard, read consistently; None: it was never served, or is released."""

    def acquire_shard(self, shard: Shard, now: Ms) -> bool:
        """Take or renew a shard, or put it to sleep, unless another owner serves it now. Repeatable."""

    def release_shard(self, shard: Shard) -> None:
        """Give up a shard that this owner serves."""
