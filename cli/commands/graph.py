"""What a job depends on and what depends on it, as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from cli import output
from cli.session import JobId, Json, session

if TYPE_CHECKING:
    from rich.tree import Tree

Node = dict[str, Any]
DEEPEST = 15  # generations: further right than that nothing would fit


def graph(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """The jobs that a job runs after, and those that run after it, with how each stands.

    \b
    headrace graph job_01J...
    headrace graph job_01J... --json | jq -r '.nodes[] | "\\(.job_id) \\(.status)"'
    """
    found = session(ctx).api.get(f"/jobs/{job}/graph")
    if as_json:
        output.print_json(found)
        return
    forest = Forest(found)
    for root in forest.roots():
        output.stdout().print(forest.tree(root))
    if found.get("truncated"):
        output.note("\nThere are more jobs than are shown. Ask for the graph of one of the last of them.")


class Forest:
    """A graph as trees: from each job that runs after none, down. One that several lead to is drawn in full once, where it comes first."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._asked = found["job_id"]
        self._nodes: dict[str, Node] = {node["job_id"]: node for node in found["nodes"]}
        self._children: dict[str, list[Node]] = {}
        for edge in found["edges"]:
            self._children.setdefault(edge["from"], []).append(edge)
        self._below = {edge["to"] for edge in found["edges"]}
        self._drawn: set[str] = set()

    def roots(self) -> list[str]:
        return [job_id for job_id in self._nodes if job_id not in self._below]

    def tree(self, root: str) -> Tree:
        """As deep as can be read; of what lies deeper it says where to look."""
        from rich.tree import Tree

        top = Tree(self._label(root), guide_style="dim")
        left = [(root, top, 1)]
        while left:
            job_id, branch, depth = left.pop()
            edges = self._children.get(job_id, []) if job_id not in self._drawn else []
            self._drawn.add(job_id)
            if edges and depth == DEEPEST:
                branch.add(f"... headrace graph {job_id}", style="dim")
            elif edges:
                left += reversed([(edge["to"], branch.add(self._label(edge["to"])), depth + 1) for edge in edges])
        return top

    def _label(self, job_id: str) -> Any:
        from rich.text import Text

        node = self._nodes[job_id]
        label = Text(job_id, style="bold" if job_id == self._asked else "")
        label.append("  ").append_text(output.status_text(str(node["status"])))
        for said in (node.get("error_code"), node.get("job_type") if node.get("job_type") != "general" else None):
            label.append(f"  {output.clean(str(said))}" if said else "", style="dim")
        return label
