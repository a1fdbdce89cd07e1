"""Send word of a job's end to whom it names, from the change stream: so nothing is said outside before the end is written [9].

What cannot be read at all is set aside by `announce_ends`, which sees the same changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from chalicelib.domain.job import Job
from chalicelib.domain.word import message_of_job
from chalicelib.ports import Bodies
from chalicelib.projections.each_change import Change, each_change
from chalicelib.usecases.correspond import recipients_of
from chalicelib.usecases.post_office import PostOffice, write_to


def send_word(office: PostOffice, bodies: Bodies, api_url: str | None, changes: Iterable[Change]) -> None:
    """Of each end that somebody wants to hear of. A change that comes again sends nothing new.

    Raises:
        NotSetAside: the stream must give the records again.
    """
    tell = partial(_tell, office, bodies, api_url)
    each_change(office.clock, office.queues, office.log, changes, tell, "not sent word of")


def _tell(office: PostOffice, bodies: Bodies, api_url: str | None, before: Job | None, after: Job) -> None:
    if not after.notifies or not after.status.is_terminal or (before is not None and before.status is after.status):
        return
    body = bodies.get(after.id)
    if body is None:  # deleted meanwhile, and whom to tell with it
        office.log("nobody was sent word: the body is gone", job_id=after.id, tenant=after.tenant)
        return
    write_to(office, after.tenant, after.id, recipients_of(body.webhook_url, body.notify), message_of_job(after, api_url))
