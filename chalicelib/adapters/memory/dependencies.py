"""Dependencies between jobs in memory."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from chalicelib.domain.jobs.dependencies import DependencyEdge, DependencyRecord


class MemoryDependencies:
    """Tests may use `records`, the dependency records by child, and `edges`, by parent and child."""

    def __init__(self) -> None:
        self.records: dict[str, DependencyRecord] = {}
        self.edges: dict[tuple[str, str], DependencyEdge] = {}
        self._lock = threading.Lock()

    def put(self, child: str, parents: Mapping[str, str], *, run_anyway: bool, ttl: int) -> None:
        with self._lock:
            self.records[child] = DependencyRecord(parents=dict(parents), open=frozenset(parents.values()), run_anyway=run_anyway)

    def link(self, child: str, parents: Mapping[str, str], *, run_anyway: bool, ttl: int) -> None:
        with self._lock:
            self.edges.update({(parent, child): DependencyEdge(child, run_anyway) for parent in parents.values()})

    def mark_parents_ended(self, child: str, parents: Collection[str], *, linked_until: int | None = None) -> int | None:
        with self._lock:
            record = self.records.get(child)
            if record is None:
                return None
            until = record.linked_until if linked_until is None else linked_until
            self.records[child] = replace(record, open=record.open - set(parents), linked_until=until)
            return len(self.records[child].open)

    def get(self, child: str) -> DependencyRecord | None:
        with self._lock:
            return self.records.get(child)

    def parents_of(self, children: Sequence[str]) -> dict[str, dict[str, str]]:
        with self._lock:
            return {child: dict(self.records[child].parents) for child in children if child in self.records}

    def children(self, parent: str, after: str | None = None, limit: int = 100) -> list[DependencyEdge]:
        with self._lock:
            found = sorted(child for other, child in self.edges if other == parent and (after is None or child > after))
            return [self.edges[parent, child] for child in found[:limit]]

    def delete_all(self, job_id: str) -> None:
        """Delete what is stored of a job as a child and as a parent."""
        with self._lock:
            record = self.records.pop(job_id, None)
            parents = set(record.parents.values()) if record else set()
            for edge in [edge for edge in self.edges if edge[0] == job_id or (edge[1] == job_id and edge[0] in parents)]:
                del self.edges[edge]
