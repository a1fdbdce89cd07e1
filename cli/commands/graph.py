"""Print the dependency graph of a job as trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from cli import output
from cli.session import JobId, Json, session

if TYPE_CHECKING:
    from rich.tree import Tree

Node = dict[str, Any]
MAX_DEPTH = 15  # deeper levels would not fit on a screen


def graph(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Show the jobs that a job depends on and those that depend on it, with their status.

    \b
    headrace graph job_01J...
    headrace graph job_01J... --json | jq -r '.nodes[] | "\\(.job_id) \\(.status)"'
    """
    answer = session(ctx).api.get(f"/jobs/{job}/graph")
    if as_json:
        output.print_json(answer)
        return
    forest = Forest(answer)
    for root in forest.roots():
        output.stdout().print(forest.tree(root))
    if answer.get("truncated"):
        output.note("\nThere are more jobs than shown here. To see them, ask for the graph of one of the last jobs.")


class Forest:
    """A dependency graph as trees, one per job without dependencies.

    A job with several dependencies appears below each of them. Its own dependents are drawn once.
    """

    def __init__(self, graph: dict[str, Any]) -> None:
        self._requested = graph["job_id"]
        self._nodes: dict[str, Node] = {node["job_id"]: node for node in graph["nodes"]}
        self._children: dict[str, list[Node]] = {}
        for edge in graph["edges"]:
            self._children.setdefault(edge["from"], []).append(edge)
        self._has_parents = {edge["to"] for edge in graph["edges"]}
        self._drawn: set[str] = set()

    def roots(self) -> list[str]:
        return [job_id for job_id in self._nodes if job_id not in self._has_parents]

    def tree(self, root: str) -> Tree:
        """The tree below one job. At the maximum depth it names the command that shows the rest."""
        from rich.tree import Tree

        top = Tree(self._label(root), guide_style="dim")
        pending = [(root, top, 1)]
        while pending:
            job_id, branch, depth = pending.pop()
            edges = self._children.get(job_id, []) if job_id not in self._drawn else []
            self._drawn.add(job_id)
            if edges and depth == MAX_DEPTH:
                branch.add(f"... headrace graph {job_id}", style="dim")
            elif edges:
                pending += reversed([(edge["to"], branch.add(self._label(edge["to"])), depth + 1) for edge in edges])
        return top

    def _label(self, job_id: str) -> Any:
        from rich.text import Text

        node = self._nodes[job_id]
        label = Text(job_id, style="bold" if job_id == self._requested else "")
        label.append("  ").append_text(output.status_text(str(node["status"])))
        for detail in (node.get("error_code"), node.get("job_type") if node.get("job_type") != "general" else None):
            label.append(f"  {output.clean(str(detail))}" if detail else "", style="dim")
        return label
