"""What depends on what, as a graph without circles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from chalicelib.domain.errors import DependencyCycle


def topological_order(parents: Mapping[str, Sequence[str]]) -> list[str]:
    """The keys, each after its parents, and otherwise as they came. Parents that are no keys are somebody else's, and left out.

    One walk in depth, without recursion, because a chain may be ten thousand long.

    Raises:
        DependencyCycle: some depend on each other; it names one such circle.
    """
    placed: dict[str, None] = {}
    for start in parents:
        path: dict[str, Iterator[str]] = {} if start in placed else {start: iter(parents[start])}
        while path:
            here = next(reversed(path))
            parent = next((one for one in path[here] if one in parents and one not in placed), None)
            if parent is None:
                del path[here]
                placed[here] = None
            elif parent in path:
                raise DependencyCycle(_circle(list(path), parent))
            else:
                path[parent] = iter(parents[parent])
    return list(placed)


def _circle(path: list[str], again: str) -> list[str]:
    """The part of a path that leads from a node back to it: each is a parent of the one before."""
    return [*path[path.index(again) :], again]
