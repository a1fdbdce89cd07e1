"""Versioned records in memory: the conditions of the real stores, for every twin that keeps such records."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

from chalicelib.domain.errors import StaleVersion


class Versioned(Protocol):
    @property
    def version(self) -> int: ...


K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=Versioned)


class RecordTable(Generic[K, R]):
    """
    Args:
        key: gives a record's key.
        absent_version: `seen.version` with which `replace` stores a record that is absent; None: never.
    """

    def __init__(self, key: Callable[[R], K], absent_version: int | None = None) -> None:
        self.rows: dict[K, R] = {}
        self._key, self._absent_version = key, absent_version
        self._lock = threading.Lock()

    def create(self, record: R) -> R:
        """Store the record unless there is one with its key; return the one that is stored."""
        with self._lock:
            return self.rows.setdefault(self._key(record), record)

    def get(self, key: K) -> R | None:
        with self._lock:
            return self.rows.get(key)

    def replace(self, seen: R, new: R) -> None:
        """Store `new` over `seen`; repeating it changes nothing.

        Raises:
            StaleVersion: another version is stored, or none.
        """
        with self._lock:
            current = self.rows.get(self._key(seen))
            if current == new:
                return
            if (current.version if current is not None else self._absent_version) != seen.version:
                raise StaleVersion(current)
            self.rows[self._key(seen)] = new

    def select(self, condition: Callable[[R], bool], order: Callable[[R], Any], *, reverse: bool = False) -> list[R]:
        with self._lock:
            return sorted(filter(condition, self.rows.values()), key=order, reverse=reverse)
