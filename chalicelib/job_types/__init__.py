"""The kinds of work that this deployment knows: each module here is one, and defines `JOB_TYPE`.

Adding a type is adding a file; nothing else names it. The modules are imported when somebody first asks for a type, so that importing
this package costs nothing. A module whose name begins with `_` is shared by others and is no type.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from chalicelib.domain.errors import JobTypeNotFound
from chalicelib.domain.jobs.job_type import JobType


def get(name: str) -> JobType:
    """The type of that name.

    Raises:
        JobTypeNotFound: there is none; the message says which one is near.
    """
    types = _discovered()
    if name in types:
        return types[name]
    near = get_close_matches(name[:60], types, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise JobTypeNotFound(f"There is no job type `{name[:60]}`; {hint}`GET /job-types` lists them.")


def all_types() -> tuple[JobType, ...]:
    """Every type, in the order of their names."""
    return tuple(_discovered().values())


def discover_again() -> None:
    """Look at the files anew when next asked: only needed where files are added to a running program."""
    _discovered.cache_clear()


@cache
def _discovered() -> dict[str, JobType]:
    """Every type by its name.

    Raises:
        TypeError: a module defines no `JOB_TYPE`.
        ValueError: two modules define the same name.
    """
    homes: dict[str, str] = {}
    types: dict[str, JobType] = {}
    for module in (f"{__name__}.{info.name}" for info in iter_modules(__path__) if not info.name.startswith("_")):
        job_type = getattr(import_module(module), "JOB_TYPE", None)
        if not isinstance(job_type, JobType):
            raise TypeError(f"{module} must define JOB_TYPE = JobType(...)")
        if job_type.name in types:
            raise ValueError(f"{module} and {homes[job_type.name]} both define the job type {job_type.name}")
        types[job_type.name], homes[job_type.name] = job_type, module
    return dict(sorted(types.items()))
