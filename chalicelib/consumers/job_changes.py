"""Process a batch of the change stream in the function `on_job_change`.

Promises come first: notifications, then dependents. Sockets come last, because they may hang, and
because a client that misses a frame asks for it. Each step has a time budget, so that together they
end before the function does: a batch that Lambda ends half-way is delivered again from its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chalicelib.consumers.broadcast_job_end import broadcast_job_ends
from chalicelib.consumers.change_loop import Change, DeadLetterFailed
from chalicelib.consumers.notify_job_end import NotifyContext, notify_job_ends
from chalicelib.consumers.release_dependents import ReleaseContext, release_dependents
from chalicelib.services.streaming.broadcast_states import BroadcastContext


class JobChangesContext(NotifyContext, ReleaseContext, BroadcastContext, Protocol):
    """What the consumers of the function `on_job_change` need."""


def process_job_changes(ctx: JobChangesContext, changes: Sequence[Change]) -> None:
    """Notify of the ends of jobs, release their dependents and broadcast states. Safe to repeat.

    Raises:
        DeadLetterFailed: the stream must deliver the batch again. All steps have run.
    """
    failed: DeadLetterFailed | None = None
    notified: set[str] = set()
    try:
        notify_job_ends(ctx, changes, notified.add)
    except DeadLetterFailed as exc:
        failed = exc
    release_dependents(ctx, changes, notified)
    broadcast_job_ends(ctx, changes)
    if failed is not None:
        raise failed
