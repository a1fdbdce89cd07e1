"""The parents of a submission: a list of job ids, or an object that names them."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.errors import Detail
from chalicelib.domain.ids import is_job_id
from chalicelib.domain.jobs.dependencies import MAX_PARENTS, is_alias


def parse_depends_on(wrong: list[Detail], given: Any) -> dict[str, str]:
    """Job ids by the names that a template has for them: in a list each is its own name. What is wrong is told entry by entry."""
    if isinstance(given, list):
        entries = [(f"depends_on.{number}", str(one), one) for number, one in enumerate(given)]
    elif isinstance(given, dict):
        entries = [(f"depends_on.{name[:80]}", str(name), one) for name, one in given.items()]
        wrong += [Detail(path, "must be named with 1 to 64 letters, digits, _ or -") for path, name, _ in entries if not is_alias(name)]
    else:
        return {}
    if len(entries) > MAX_PARENTS:
        wrong.append(Detail("depends_on", f"may name {MAX_PARENTS} jobs, not {len(entries)}"))
        return {}
    first: dict[str, str] = {}
    for path, _, one in entries:
        if not isinstance(one, str) or not is_job_id(one):
            wrong.append(Detail(path, "must be the id of a job, job_..."))
        elif first.setdefault(one, path) != path:
            wrong.append(Detail(path, f"is the same job as {first[one]}"))
    return {name: one for _, name, one in entries if isinstance(one, str)}
