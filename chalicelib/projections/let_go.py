"""Let the children of jobs go that have ended, from the change stream [22].

Nothing is lost here: every child is due, and the sweep decides afresh. So what fails is said in the log, what does not fit into the time
is left, and the others go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from chalicelib.domain.job import Job, Ms
from chalicelib.domain.parents import Edge
from chalicelib.domain.transitions import waits_for_parents
from chalicelib.projections.each_change import patiently
from chalicelib.usecases.let_go import Doorway, let_go
from chalicelib.usecases.read_heads import read_heads

PATIENCE_MS = 15_000  # of one batch together; the function has time for that of all its projections
PAGE = 100
WRONG_AGAIN_MS = 600_000  # a record that cannot be read hides no other

Change = tuple[str, Job | None, Job | None]


def let_children_go(door: Doorway, changes: Iterable[Change]) -> None:
    """For each change `(job id, before, after)` to an end: let its children go that wait for nothing else, or cancel them. Never raises."""
    until = door.clock.now() + PATIENCE_MS
    for job_id, before, after in changes:
        if after is None or not after.status.is_terminal or (before is not None and before.status.is_terminal):
            continue
        try:
            _let_go_of(door, job_id, until)
        except Exception as exc:  # noqa: BLE001 - a record that always fails would stop its shard; the sweep finds the children
            door.log("children were not let go", job_id=job_id, tenant=after.tenant, error=exc)


def _let_go_of(door: Doorway, job_id: str, until: Ms) -> None:
    """What counts is the record and not its image: a replayed one may be from before the job was started again."""
    parent: Job | None = None
    for edge, child in _children(door, job_id, until):
        parent = parent or door.jobs.get(job_id)
        if parent is None or not parent.status.is_terminal or parent.is_forgotten:
            return
        if door.clock.now() >= until:
            door.log("children were left to the sweep", job_id=job_id, tenant=parent.tenant)
            return
        try:
            patiently(door.clock, partial(let_go, door, parent, edge, child), until)
        except Exception as exc:  # noqa: BLE001 - one child must not stop the others
            door.log("a child was not let go", job_id=child.id, tenant=child.tenant, error=exc)


def _children(door: Doorway, job_id: str, until: Ms) -> Iterator[tuple[Edge, Job]]:
    """The children that still wait, a page at a time."""
    after: str | None = None
    while True:
        found: list[Edge] = []
        patiently(door.clock, lambda: found.extend(door.dependencies.children(job_id, after, PAGE)), until)  # noqa: B023 - called at once
        edges = {edge.child: edge for edge in found}
        again = door.clock.now() + WRONG_AGAIN_MS
        heads = read_heads(door.jobs, door.log, list(edges), again, consistent=True) if edges else []
        yield from ((edges[child.id], child) for child in heads if waits_for_parents(child))
        if len(found) < PAGE:
            return
        after = found[-1].child
