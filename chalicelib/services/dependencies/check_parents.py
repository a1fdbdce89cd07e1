"""Check that the parents of a submission exist and that the caller may read them."""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import Detail, Forbidden, InvalidRequest, JobNotFound
from chalicelib.domain.validation.schema import MAX_DETAILS
from chalicelib.ports import Jobs


def check_parents(jobs: Jobs, caller: Caller, parents: Mapping[str, str]) -> None:
    """Check that the caller may read the parents, because their output can get into the prompt.

    Args:
        parents: parent job ids by alias.

    Raises:
        InvalidRequest: with every parent that does not exist, up to 100. A parent that the caller
            may not read looks the same.
    """
    if not parents:
        return
    existing = {job.id: job for job in jobs.get_many(list(parents.values()), consistent=True)}
    details = []
    for alias, parent in parents.items():
        try:
            caller.require_readable(existing.get(parent), parent)
        except (JobNotFound, Forbidden):
            suffix = f" ({alias})" if alias != parent else ""
            details.append(Detail("depends_on", f"names {parent}{suffix}, and there is no such job here"))
    if details:
        raise InvalidRequest(details=tuple(details[:MAX_DETAILS]))
