"""The composition root. Entry points get the container here and pass it to the services."""

from __future__ import annotations

from chalicelib.bootstrap.container import Container
from chalicelib.settings import settings

__all__ = ["Container", "container", "override"]

_current: list[Container] = []


def container() -> Container:
    """The container of this execution environment."""
    if not _current:
        _current.append(Container(settings()))
    return _current[0]


def override(replacement: Container | None) -> None:
    """Replace the container, in tests. None: create a new one on the next use."""
    _current[:] = [replacement] if replacement is not None else []
