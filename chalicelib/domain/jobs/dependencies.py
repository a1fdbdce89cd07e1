"""Define what the end of a parent means for a child, and what a template may use of a parent.

Only `completed` counts as success. A deleted parent counts as failed, because its output is gone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.template import names_within

MAX_PARENTS = 100
CANCEL = "cancel"
RUN_ANYWAY = "run_anyway"
POLICIES = (CANCEL, RUN_ANYWAY)
DELETED = "deleted"  # the status of a parent that no longer exists
ROOT = "parents"  # what a template calls the parents: `{{parents.<alias>.<part>}}`
PARTS = ("output", "parsed", "status", "job_id")
_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyRecord:
    """The dependencies of one child, stored beside its job record."""

    parents: Mapping[str, str]  # parent job ids by their aliases in the template
    open: frozenset[str]  # parent job ids whose end the child still waits for
    run_anyway: bool = False  # whether the child also runs if a parent fails
    # Seconds since 1970 until which every parent has an edge to the child; 0: edges may be missing.
    linked_until: int = 0


@dataclass(frozen=True, slots=True)
class DependencyEdge:
    """A child to release, stored with its parent."""

    child: str
    run_anyway: bool


def status_of(parent: Job | None) -> str:
    """Return the status of a parent as users see it; None stands for a deleted parent."""
    return DELETED if parent is None else parent.status.value


def has_ended(parent: Job | None) -> bool:
    """Whether a parent has ended; a deleted one has."""
    return parent is None or parent.status.is_terminal


def has_failed(parent: Job | None) -> bool:
    """Whether a parent ended without being completed. A later manual retry does not undo that."""
    return has_ended(parent) and (parent is None or parent.status is not Status.COMPLETED)


def first_failed(parents: Iterable[str], jobs: Mapping[str, Job]) -> str | None:
    """Return the first parent id that has failed; `jobs` holds the existing parents by id."""
    return next((parent for parent in parents if has_failed(jobs.get(parent))), None)


def is_alias(name: Any) -> bool:
    """Whether a template can use `name` for a parent."""
    return isinstance(name, str) and _ALIAS.fullmatch(name) is not None


def template_problems(content: Any, aliases: Collection[str], others: Collection[str] = ()) -> list[str]:
    """Return one message for each name in a template that can never have a value.

    Args:
        content: a prompt, or an input whose texts are templates.
        aliases: the aliases of the parents.
        others: names that the template may use besides its parents.
    """
    known = [f"{{{{{ROOT}.{alias}.output}}}}" for alias in list(aliases)[:5]] + [f"{{{{{name}}}}}" for name in list(others)[:5]]
    unknown = [name for name in names_within(content) if name not in others and not _is_known(name, aliases)]
    return [f"asks for {{{{{name[:80]}}}}}; there is {', '.join(known) or 'nothing'} and the like" for name in unknown]


def _is_known(name: str, aliases: Collection[str]) -> bool:
    root, _, rest = name.partition(".")
    alias, _, part = rest.partition(".")
    return root == ROOT and alias in aliases and (part in PARTS or part.startswith("parsed."))
