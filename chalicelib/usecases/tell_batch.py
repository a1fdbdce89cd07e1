"""Send word of a batch's end to whom it names."""

from __future__ import annotations

from chalicelib.domain.batch import Batch
from chalicelib.domain.batch_counts import Counts
from chalicelib.domain.recipients import anyone_of
from chalicelib.domain.word import message_of_batch
from chalicelib.usecases.post_office import PostOffice, write_to


def tell_batch(office: PostOffice, api_url: str | None, batch: Batch, counts: Counts) -> None:
    """One message for each run, to each of them once, however often it is done [9].

    Raises:
        Unavailable: some may not have been written to; repeat it.
    """
    write_to(office, batch.tenant, batch.id, map(anyone_of, batch.notify_targets), message_of_batch(batch, counts, api_url))
