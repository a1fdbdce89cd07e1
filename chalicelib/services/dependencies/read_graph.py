"""Read the dependency graph around a job: its ancestors and its descendants."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.jobs.job import Job
from chalicelib.ports import Dependencies, Jobs
from chalicelib.services.load_jobs import load_readable_jobs
from chalicelib.services.log import Log

MAX_NODES = 200  # jobs in one graph


@dataclass(frozen=True, slots=True)
class Link:
    """An edge: `child` runs after `parent`."""

    parent: str
    child: str
    alias: str  # the name of the parent in the template of the child


@dataclass(frozen=True, slots=True)
class Graph:
    """The jobs around one job, and the edges between them."""

    nodes: tuple[Job, ...]  # sorted by id, so by creation
    links: tuple[Link, ...]
    truncated: bool  # there are more than `MAX_NODES`


def read_graph(jobs: Jobs, log: Log, dependencies: Dependencies, caller: Caller, job: Job) -> Graph:
    """Return the ancestors and descendants that the caller may see.

    The walk stops at jobs that the caller may not see, and at records that cannot be read. It sends
    one request for each 100 jobs of a level, and one for the children of each job.
    """
    found: dict[str, Job] = {job.id: job}
    walk = _Walk(jobs, log, dependencies, caller, found)
    truncated = walk.up([job.id])
    truncated = walk.down([job.id]) or truncated
    parents = dependencies.parents_of(list(found))
    links = [Link(parent, child, alias) for child, names in parents.items() for alias, parent in names.items() if parent in found]
    nodes = tuple(found[job_id] for job_id in sorted(found))
    return Graph(nodes, tuple(sorted(links, key=lambda link: (link.child, link.parent))), truncated)


@dataclass(frozen=True, slots=True)
class _Walk:
    jobs: Jobs
    log: Log
    dependencies: Dependencies
    caller: Caller
    found: dict[str, Job]

    def up(self, level: list[str]) -> bool:
        """Add the ancestors of `level`, level by level; return whether some did not fit."""
        truncated = False
        while level and not truncated:
            parents = self.dependencies.parents_of(level).values()
            level, truncated = self._add([parent for names in parents for parent in names.values()])
        return truncated

    def down(self, level: list[str]) -> bool:
        """Add the descendants of `level`, level by level; return whether some did not fit."""
        truncated = False
        while level and not truncated:
            children: list[str] = []
            for job_id in level:
                if len(children) <= self._room:
                    children += [edge.child for edge in self.dependencies.children(job_id, limit=self._room + 1)]
            level, truncated = self._add(children)
        return truncated

    @property
    def _room(self) -> int:
        return MAX_NODES - len(self.found)

    def _add(self, ids: list[str]) -> tuple[list[str], bool]:
        """Add new jobs that the caller may see; return their ids, and whether some did not fit."""
        new = [job_id for job_id in dict.fromkeys(ids) if job_id not in self.found]
        room = self._room
        added = [job for job in load_readable_jobs(self.jobs, self.log, new[:room]).jobs if self.caller.may_see(job)]
        self.found.update({job.id: job for job in added})
        return [job.id for job in added], len(new) > room
