"""Parse `depends_on` of a submission: a list of job ids, or an object of aliases and job ids."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.errors import Detail
from chalicelib.domain.ids import is_job_id
from chalicelib.domain.jobs.dependencies import MAX_PARENTS, is_alias


def parse_depends_on(details: list[Detail], value: Any) -> dict[str, str]:
    """Job ids by the alias that templates use; in a list, each id is its own alias.

    Problems are appended to `details`, one per entry.
    """
    if isinstance(value, list | dict) and len(value) > MAX_PARENTS:  # the schema of the request has refused it
        return {}
    if isinstance(value, list):
        entries = [(f"depends_on.{index}", str(job_id), job_id) for index, job_id in enumerate(value)]
    elif isinstance(value, dict):
        entries = [(f"depends_on.{alias[:80]}", str(alias), job_id) for alias, job_id in value.items()]
        details += [Detail(path, "must be named by 1 to 64 letters, digits, _ or -") for path, alias, _ in entries if not is_alias(alias)]
    else:
        return {}
    first_paths: dict[str, str] = {}
    for path, _, job_id in entries:
        if not isinstance(job_id, str) or not is_job_id(job_id):
            details.append(Detail(path, "must be the id of a job, job_..."))
        elif first_paths.setdefault(job_id, path) != path:
            details.append(Detail(path, f"is the same job as {first_paths[job_id]}"))
    return {alias: job_id for _, alias, job_id in entries if isinstance(job_id, str)}
