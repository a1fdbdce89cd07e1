"""A graph of jobs as answers show it."""

from __future__ import annotations

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.responses.jobs import Shape, percentage
from chalicelib.services.dependencies.read_graph import Graph


def graph(job: Job, found: Graph, *, content: bool) -> Shape:
    """Nodes and edges, from parent to child. Aliases are what somebody wrote: without `content` (a viewer) they are null."""
    return {
        "job_id": job.id,
        "nodes": [_node(one) for one in found.nodes],
        "edges": [{"from": link.parent, "to": link.child, "alias": link.alias if content else None} for link in found.links],
        "truncated": found.truncated,
    }


def _node(job: Job) -> Shape:
    return {
        "job_id": job.id,
        "job_type": job.type,
        "status": job.status.value,
        "reason": job.reason,
        "priority": job.lane,
        "progress_percentage": percentage(job),
        "error_code": job.error.code if job.error else None,
        "created_at": rfc3339(job.created_at),
        "finished_at": rfc3339(job.finished_at),
    }
