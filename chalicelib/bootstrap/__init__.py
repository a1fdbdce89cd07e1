"""The composition root: entry points take the container from here once per invocation and hand it on."""

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


def override(other: Container | None) -> None:
    """Use another container, as tests do; None: a new real one when it is next needed."""
    _current[:] = [other] if other is not None else []
