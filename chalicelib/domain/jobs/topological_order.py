"""Sort a dependency graph so that parents come before their children."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from chalicelib.domain.errors import DependencyCycle


def topological_order(parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the keys with each key after its parents, otherwise in their order.

    Parents that are not keys are ignored. A depth-first walk without recursion, because a chain may
    be ten thousand keys long.

    Raises:
        DependencyCycle: keys depend on each other; it names one such cycle.
    """
    placed: dict[str, None] = {}
    for start in parents:
        path: dict[str, Iterator[str]] = {} if start in placed else {start: iter(parents[start])}
        while path:
            node = next(reversed(path))
            parent = next((one for one in path[node] if one in parents and one not in placed), None)
            if parent is None:
                del path[node]
                placed[node] = None
            elif parent in path:
                raise DependencyCycle(_cycle(list(path), parent))
            else:
                path[parent] = iter(parents[parent])
    return list(placed)


def _cycle(path: list[str], node: str) -> list[str]:
    """Return the part of `path` from `node` back to it; each entry is a parent of the one before."""
    return [*path[path.index(node) :], node]
