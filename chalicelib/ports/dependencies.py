"""Dependencies between jobs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from chalicelib.domain.jobs.dependencies import DependencyEdge, DependencyRecord


class Dependencies(Protocol):
    """Stores the dependency record of each child, and an edge from each of its parents.

    Edges are read consistently: a parent that ends after its edge was written finds the child.
    `parents` maps the aliases that the child's template uses to job ids. `ttl` and `linked_until`
    are seconds since 1970.
    """

    def put(self, child: str, parents: Mapping[str, str], *, run_anyway: bool, ttl: int) -> None:
        """Store the dependency record, with all parents open.

        Called before the child's job record is created.
        """

    def link(self, child: str, parents: Mapping[str, str], *, run_anyway: bool, ttl: int) -> None:
        """Write the edges, and the parents of the child again with the same `ttl`.

        Repeating it succeeds. One request for each 25 rows.
        """

    def mark_parents_ended(self, child: str, parents: Collection[str], *, linked_until: int | None = None) -> int | None:
        """Remove `parents` from the open ones.

        Return how many are left; None if there is no record. Repeating it changes nothing.
        `linked_until`: every parent has its edge, until then.
        """

    def get(self, child: str) -> DependencyRecord | None:
        """Return the dependency record, read consistently."""

    def parents_of(self, children: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the parents, by alias, of those children that have any.

        One request for each hundred.
        """

    def children(self, parent: str, after: str | None = None, limit: int = 100) -> list[DependencyEdge]:
        """Return the edges to a parent's children in the order of their ids, beyond `after`."""
