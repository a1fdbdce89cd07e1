"""Jobs that run after others: what a parent's end means for its child, and what a template may ask of a parent.

Only `completed` counts as success. A parent that is no longer there, because somebody deleted it, is taken for one that failed: what it
said is gone.
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
DELETED = "deleted"  # the status of a parent that is no longer there
ROOT = "parents"
PARTS = ("output", "parsed", "status", "job_id")
_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyRecord:
    """What is kept of a child beside its head.

    `parents` are ids by the names that the template has for them. `open` are those whose end it still waits for. `linked_until` (seconds):
    every parent has been told of the child, and knows it until then; 0 while that is not certain.
    """

    parents: Mapping[str, str]
    open: frozenset[str]
    run_anyway: bool = False
    linked_until: int = 0


@dataclass(frozen=True, slots=True)
class DependencyEdge:
    """That a job is to be told when another has ended."""

    child: str
    run_anyway: bool


def status_of(parent: Job | None) -> str:
    return DELETED if parent is None else parent.status.value


def has_ended(parent: Job | None) -> bool:
    return parent is None or parent.status.is_terminal


def has_failed(parent: Job | None) -> bool:
    """Whether nothing more is to be hoped of it: it ended, and is not completed. A later retry by hand does not undo that."""
    return has_ended(parent) and (parent is None or parent.status is not Status.COMPLETED)


def first_failed(parents: Iterable[str], heads: Mapping[str, Job]) -> str | None:
    return next((one for one in parents if has_failed(heads.get(one))), None)


def is_alias(name: Any) -> bool:
    return isinstance(name, str) and _ALIAS.fullmatch(name) is not None


def template_problems(content: Any, aliases: Collection[str], others: Collection[str] = ()) -> list[str]:
    """What a template asks for and will never be there. `others` are the names that it may use besides its parents."""
    known = [f"{{{{{ROOT}.{alias}.output}}}}" for alias in list(aliases)[:5]] + [f"{{{{{name}}}}}" for name in list(others)[:5]]
    wrong = [name for name in names_within(content) if name not in others and not _is_known(name, aliases)]
    return [f"asks for {{{{{name[:80]}}}}}; there is {', '.join(known) or 'nothing'} and the like" for name in wrong]


def _is_known(name: str, aliases: Collection[str]) -> bool:
    root, _, rest = name.partition(".")
    alias, _, part = rest.partition(".")
    return root == ROOT and alias in aliases and (part in PARTS or part.startswith("parsed."))
