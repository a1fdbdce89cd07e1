"""The registry of job types: each module of this package defines one as `JOB_TYPE`.

To add a type, add a file; no other code names it. The modules are imported when a type is first
looked up, so that importing this package is cheap. Names that begin with `_` are shared code and
not types.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from chalicelib.domain.errors import JobTypeNotFound
from chalicelib.domain.jobs.job_type import JobType


def get(name: str) -> JobType:
    """Return the type of that name.

    Raises:
        JobTypeNotFound: there is none; the message suggests a similar name.
    """
    types = _discovered()
    if name in types:
        return types[name]
    near = get_close_matches(name[:60], types, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise JobTypeNotFound(f"The job type `{name[:60]}` does not exist; {hint}`GET /job-types` lists all of them.")


def all_types() -> tuple[JobType, ...]:
    """Return every type, ordered by name."""
    return tuple(_discovered().values())


def discover_again() -> None:
    """Discover the types again at the next lookup.

    Only needed if files are added while the program runs.
    """
    _discovered.cache_clear()


@cache
def _discovered() -> dict[str, JobType]:
    """Return every type by its name.

    Raises:
        TypeError: a module defines no `JOB_TYPE`.
        ValueError: two modules define the same name.
    """
    modules: dict[str, str] = {}  # by type name
    types: dict[str, JobType] = {}
    for module in (f"{__name__}.{info.name}" for info in iter_modules(__path__) if not info.name.startswith("_")):
        job_type = getattr(import_module(module), "JOB_TYPE", None)
        if not isinstance(job_type, JobType):
            raise TypeError(f"{module} must define JOB_TYPE = JobType(...)")
        if job_type.name in types:
            raise ValueError(f"{module} and {modules[job_type.name]} both define the job type {job_type.name}")
        types[job_type.name], modules[job_type.name] = job_type, module
    return dict(sorted(types.items()))
