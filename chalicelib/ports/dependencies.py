"""Who waits for whom: rows of the child's page and of its parents', beside the heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from chalicelib.domain.jobs.dependencies import DependencyEdge, DependencyRecord


class Dependencies(Protocol):
    """Edges are read consistently: whoever ends a parent after its edge was put finds it. `ttl` and `until` are seconds since 1970."""

    def put(self, child: str, parents: Mapping[str, str], *, run_anyway: bool, ttl: int) -> None:
        """Before the child's head: whom it waits for, all of them, by the names that it has for them."""

    def link(self, child: str, parents: Mapping[str, str], *, run_anyway: bool, ttl: int) -> None:
        """Tell each parent of its child, and keep the names as long; 25 rows in a request. Repeating it succeeds."""

    def mark_parents_ended(self, child: str, parents: Collection[str], *, linked_until: int | None = None) -> int | None:
        """How many the child still waits for once these are crossed off; None: nothing is kept of it. Repeating it changes nothing.

        `linked_until`: all parents have been told, and know it until then.
        """

    def get(self, child: str) -> DependencyRecord | None:
        """What is kept of a child; None: nothing."""

    def parents_of(self, children: Sequence[str]) -> dict[str, dict[str, str]]:
        """The parents of those that have any, by the names that each has for them. One request for each hundred."""

    def children(self, parent: str, after: str | None = None, limit: int = 100) -> list[DependencyEdge]:
        """The jobs that are to be told of the end of this one, by id, from beyond `after` on."""
