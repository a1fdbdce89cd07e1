"""What a job depends on, and what depends on it, as far as that goes."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.jobs.job import Job
from chalicelib.ports import Dependencies, Jobs

MAX_NODES = 200


@dataclass(frozen=True, slots=True)
class Link:
    """`child` runs after `parent`, which its template calls `alias`."""

    parent: str
    child: str
    alias: str


@dataclass(frozen=True, slots=True)
class Graph:
    """Each parent before its children would be too much to promise: nodes are by id, so by age. `truncated`: there are more."""

    nodes: tuple[Job, ...]
    links: tuple[Link, ...]
    truncated: bool


def read_graph(jobs: Jobs, dependencies: Dependencies, caller: Caller, job: Job) -> Graph:
    """The ancestors and the descendants of a job that this caller may see; beyond one that they may not, nothing is looked for.

    A request for each hundred jobs of a generation, and one for the children of each job; at most 200 jobs.
    """
    found: dict[str, Job] = {job.id: job}
    walk = _Walk(jobs, dependencies, caller, found)
    truncated = walk.up([job.id])
    truncated = walk.down([job.id]) or truncated
    parents = dependencies.parents_of(list(found))
    links = [Link(parent, child, alias) for child, names in parents.items() for alias, parent in names.items() if parent in found]
    nodes = tuple(found[job_id] for job_id in sorted(found))
    return Graph(nodes, tuple(sorted(links, key=lambda link: (link.child, link.parent))), truncated)


@dataclass(frozen=True, slots=True)
class _Walk:
    jobs: Jobs
    dependencies: Dependencies
    caller: Caller
    found: dict[str, Job]

    def up(self, here: list[str]) -> bool:
        """One generation after the other; whether there was more than may be shown."""
        more = False
        while here and not more:
            parents = self.dependencies.parents_of(here).values()
            here, more = self._take([parent for names in parents for parent in names.values()])
        return more

    def down(self, here: list[str]) -> bool:
        more = False
        while here and not more:
            children: list[str] = []
            for job_id in here:
                if len(children) <= self._room:
                    children += [edge.child for edge in self.dependencies.children(job_id, limit=self._room + 1)]
            here, more = self._take(children)
        return more

    @property
    def _room(self) -> int:
        return MAX_NODES - len(self.found)

    def _take(self, ids: list[str]) -> tuple[list[str], bool]:
        """Those of them that are new and may be seen, as many as there is room for; whether there were more."""
        new = [job_id for job_id in dict.fromkeys(ids) if job_id not in self.found]
        room = self._room
        heads = [job for job in self.jobs.get_many(new[:room]) if self.caller.may_see(job)]
        self.found.update({job.id: job for job in heads})
        return [job.id for job in heads], len(new) > room
