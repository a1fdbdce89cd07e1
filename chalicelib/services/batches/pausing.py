"""Find out whether a batch may release further rows, or is paused."""

from __future__ import annotations

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.limits.pauses import Pause, PauseTarget, pause_of
from chalicelib.services.load_pauses import PauseContext, load_pauses


def pause_of_rows(ctx: PauseContext, batch: Batch) -> Pause | None:
    """Return the pause that holds back the next rows of a batch; None: they may be released.

    Rows with a priority of their own are released with the others; a worker holds them.
    """
    return pause_of(next_row(batch), load_pauses(ctx, batch.tenant), ctx.clock.now())


def next_row(batch: Batch) -> PauseTarget:
    """Return what decides whether a pause covers the next rows of a batch."""
    return PauseTarget(job_id_of_row(batch.id, min(batch.released, batch.total - 1)), batch.tenant, batch.type, batch.lane)
