"""JSON of a dependency graph. The field names are public: see docs/api.md."""

from __future__ import annotations

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.responses.jobs import Shape, percentage
from chalicelib.services.dependencies.read_graph import Graph


def graph_shape(job: Job, graph: Graph, *, content: bool) -> Shape:
    """Nodes, and edges from parent to child. Without `content` (a viewer), aliases are null."""
    return {
        "job_id": job.id,
        "nodes": [_node(node) for node in graph.nodes],
        "edges": [{"from": link.parent, "to": link.child, "alias": link.alias if content else None} for link in graph.links],
        "truncated": graph.truncated,
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
