"""Look after the lines of held jobs: that each has a scheduler, and that late jobs end.

Runs every minute. It looks at lines and not at jobs, so a million held jobs cost nothing while they
wait. A job in a line is due only when it may wait no longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from chalicelib.domain.errors import HeadraceError
from chalicelib.domain.jobs.index_keys import IN_LINE
from chalicelib.domain.queues.causes import BUCKETS, kind_of, shard_of, subject_of
from chalicelib.domain.units import Ms
from chalicelib.ports import Line, ParallelMap
from chalicelib.services.load_jobs import load_jobs
from chalicelib.services.maintenance.check_job import ERROR_BACKOFF_MS, check_job
from chalicelib.services.maintenance.context import SweepContext, SweepResult, guarded
from chalicelib.services.scheduling.slot_lines import sweep_slot_line
from chalicelib.services.scheduling.visits import SELF_SERVED, ShardMessage, wake_shard

PAGE_SIZE = 200  # late jobs of each index shard that are read together
CHUNK = 100  # jobs between two looks at the clock


class LineSweepContext(SweepContext, Protocol):
    """What looking after the lines needs."""

    @property
    def parallel_map(self) -> ParallelMap: ...


def sweep_lines(ctx: LineSweepContext, until: Ms) -> Counter[SweepResult]:
    """Wake the shards whose lines nobody serves, then end the jobs that have waited too long.

    Returns how often each result occurred; errors are logged and never raised. A step that fails
    stops no other.
    """
    lines = _read_lines(ctx)
    done = Counter({SweepResult.SCHEDULER_WOKEN: _wake_idle_shards(ctx, lines)})
    own = [line for line in lines if kind_of(line.cause) is SELF_SERVED]
    done[SweepResult.SLOT_RELEASED] += sum(ctx.parallel_map(partial(_serve, ctx), own))
    done += guarded(ctx, partial(_end_late_jobs, ctx, until), Counter[SweepResult](), what=IN_LINE)
    done = +done
    if done:
        ctx.log("lines_swept", **{result.value: count for result, count in done.items()})
    return done


def _read_lines(ctx: LineSweepContext) -> list[Line]:
    """Return all lines but those of buckets that cannot be read now."""

    def rows(bucket: int) -> list[Line]:
        return guarded(ctx, partial(ctx.lines.rows, bucket), [], what="lines")

    return [line for found in ctx.parallel_map(rows, range(BUCKETS)) for line in found]


def _serve(ctx: LineSweepContext, line: Line) -> int:
    """Serve the line of a concurrency limit; what fails is logged, and tried again by the next run."""
    try:
        return sweep_slot_line(ctx, line)
    except HeadraceError as exc:
        ctx.log("slot_line_not_served", scope=subject_of(line.cause), tenant=line.tenant, error=exc)
        return 0


def _wake_idle_shards(ctx: LineSweepContext, lines: Sequence[Line]) -> int:
    """Wake each shard with a line whose lease is over. Returns how many."""
    numbers = {shard_of(line.cause, ctx.scheduler_shards) for line in lines if kind_of(line.cause) is not SELF_SERVED}
    return sum(guarded(ctx, partial(_wake_if_not_served, ctx, number), False, what="scheduler") for number in sorted(numbers))


def _wake_if_not_served(ctx: LineSweepContext, number: int) -> bool:
    """Wake a shard if its lease is over. Returns whether it was woken."""
    now = ctx.clock.now()
    shard = ctx.lines.shard(number)
    if shard is not None and shard.is_served(now):
        return False
    wake_shard(ctx, ShardMessage(number, at=now))
    return True


def _end_late_jobs(ctx: LineSweepContext, until: Ms) -> Counter[SweepResult]:
    """Check the jobs that are due, until none is left or the time is over."""
    done: Counter[SweepResult] = Counter()
    tried: set[str] = set()  # the index may still list a job that has just ended
    while (now := ctx.clock.now()) < until:
        ids = [job_id for job_id in ctx.jobs.due(IN_LINE, now, PAGE_SIZE) if job_id not in tried]
        if not ids:
            break
        tried.update(ids)
        for start in range(0, len(ids), CHUNK):
            if ctx.clock.now() >= until:
                break
            jobs = load_jobs(ctx.jobs, ctx.log, ids[start : start + CHUNK], now + ERROR_BACKOFF_MS, consistent=True)
            in_line = [job for job in jobs if job.is_in_line]  # the index may be behind: a job that runs is not for this sweep
            done.update(ctx.parallel_map(partial(check_job, ctx), in_line))
    return done
