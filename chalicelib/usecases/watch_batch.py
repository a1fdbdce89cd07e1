"""Watch a batch over a WebSocket."""

from __future__ import annotations

from chalicelib.domain import batch_frames
from chalicelib.domain.batch_counts import Counts, place
from chalicelib.domain.watching import Connection
from chalicelib.ports import Batches, Ledger
from chalicelib.usecases.steer_batch import find
from chalicelib.usecases.watch_job import Gallery, enrol, post


def subscribe_to_batch(
    gallery: Gallery, batches: Batches, ledger: Ledger, connection: Connection, batch_id: str, tenant: str | None, reply_to: str | None
) -> None:
    """Let the connection hear of a batch from now on, beginning with how it stands.

    The row is written before the record is read, as for a job [14]: what is counted later finds the row, what was counted before is read.

    Raises:
        BatchNotFound: as for reading it.
        InvalidRequest: the connection has as many subscriptions as it may.
    """
    find(batches, connection.caller, batch_id, tenant)
    watcher = enrol(gallery, connection, batch_id)
    batch = find(batches, connection.caller, batch_id, tenant)
    where, now = place(batch_id), gallery.clock.now()
    counts = Counts.of(ledger.get([where]).get(where, {}))
    more = {"reply_to": reply_to} if reply_to is not None else {}
    post(gallery, watcher, {**batch_frames.connected(batch, counts, now), **more})
    if batch.finished_at is not None:
        post(gallery, watcher, batch_frames.state(batch, counts, now))
