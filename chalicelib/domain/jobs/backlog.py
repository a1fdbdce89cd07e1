"""How far a deep queue has been handed out, so that jobs which only wait for their turn are not taken for forgotten ones."""

from __future__ import annotations

from collections.abc import Iterable

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.transitions import QUEUED_CHECK_DELAY_MS
from chalicelib.domain.units import Ms


def watermark(jobs: Iterable[Job]) -> Ms:
    """Since when the one of these that has waited longest has been ready: what a worker says of the batch that it was handed."""
    return min(max(job.queued_at, job.resume_at or 0) for job in jobs)


def due_cutoff(until: Ms, watermarks: Iterable[Ms], depth: int) -> Ms:
    """Until when the due jobs of a lane are looked at that holds `depth` messages and whose workers say these watermarks.

    What was queued after the newest watermark is behind it, and no wake-up of it need be missed. Nothing is hidden where no worker says
    anything, or where nobody waits.
    """
    newest = max(watermarks, default=0)
    if not newest or not depth:
        return until
    return min(until, newest + QUEUED_CHECK_DELAY_MS - 1)
