"""Whether the jobs are there that a submission depends on."""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import Detail, Forbidden, InvalidRequest, JobNotFound
from chalicelib.domain.validation.schema import MAX_DETAILS
from chalicelib.ports import Jobs


def check_parents(jobs: Jobs, caller: Caller, parents: Mapping[str, str]) -> None:
    """A job may depend only on what its submitter may read, because it will say so to the model.

    Raises:
        InvalidRequest: with every parent that is not there, up to a hundred; somebody else's looks the same.
    """
    if not parents:
        return
    heads = {job.id: job for job in jobs.get_many(list(parents.values()), consistent=True)}
    wrong = []
    for name, parent in parents.items():
        try:
            caller.require_readable(heads.get(parent), parent)
        except (JobNotFound, Forbidden):
            where = f" ({name})" if name != parent else ""
            wrong.append(Detail("depends_on", f"names {parent}{where}, and there is no such job here"))
    if wrong:
        raise InvalidRequest(details=tuple(wrong[:MAX_DETAILS]))
