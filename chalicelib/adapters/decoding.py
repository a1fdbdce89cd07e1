"""Decode what is stored. A record that cannot be read is named, and does not stop its neighbours.

While two versions of the code run, each meets records of the other: those may have a status or a
form that this version does not know. Readers of one record raise `UnreadableRecord`; readers of
many leave such a record out and log it, unless an absent record means something to their callers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import cache, lru_cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from chalicelib.domain.errors import UnreadableRecord
from chalicelib.observability import record

# What a decoder raises that meets another type, an unknown name, no JSON, no gzip, or too deep a nesting.
PROBLEMS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, zlib.error)
MAX_REASON_LENGTH = 200
MAX_REMEMBERED = 1_000  # records whose skipping was logged

R = TypeVar("R")
T = TypeVar("T")


def decode(key: str, build: Callable[[], T]) -> T:
    """Return what `build` makes of a stored record.

    Args:
        key: names the record, for the log and for callers that asked for several.

    Raises:
        UnreadableRecord: it cannot be decoded.
    """
    try:
        return build()
    except PROBLEMS as exc:
        raise UnreadableRecord({key: f"{type(exc).__name__}: {exc}"[:MAX_REASON_LENGTH]}) from exc


def checked(built: T) -> T:
    """Return a dataclass that was built from JSON.

    Raises:
        TypeError: a field has another type than the class declares. A reader would meet it later,
            where it stops others: times are compared, numbers are added.
    """
    kind: Any = type(built)
    for name, kinds in _types_of(kind).items():
        value = getattr(built, name)
        if not isinstance(value, kinds):
            raise TypeError(f"{name} is {type(value).__name__}")
    return built


@cache
def _types_of(kind: Any) -> dict[str, tuple[type, ...]]:
    hints = get_type_hints(kind)
    return {field.name: _runtime_types(hints[field.name]) for field in fields(kind)}


def _runtime_types(hint: Any) -> tuple[type, ...]:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return tuple(kind for part in get_args(hint) for kind in _runtime_types(part))
    kind = object if hint is Any else origin or hint
    return (float, int) if kind is float else (kind,) if isinstance(kind, type) else (object,)


def decode_all(rows: Iterable[R], build: Callable[[R], T]) -> list[T]:
    """Return what `build` makes of each row.

    Raises:
        UnreadableRecord: with every row that cannot be decoded.
    """
    found: list[T] = []
    problems: dict[str, str] = {}
    for row in rows:
        try:
            found.append(build(row))
        except UnreadableRecord as exc:
            problems.update(exc.problems)
    if problems:
        raise UnreadableRecord(problems)
    return found


def decode_readable(rows: Iterable[R], build: Callable[[R], T]) -> Iterator[T]:
    """Yield what `build` makes of each row. A row that cannot be decoded is left out and logged."""
    for row in rows:
        try:
            yield build(row)
        except UnreadableRecord as exc:
            log_skipped(exc)


def log_skipped(exc: UnreadableRecord) -> None:
    """Log that records were left out, once for each record and environment: some are read each second."""
    for key, reason in exc.problems.items():
        _log_once(key, reason)


@lru_cache(maxsize=MAX_REMEMBERED)
def _log_once(key: str, reason: str) -> None:
    record("record_unreadable", key=key, reason=reason)
