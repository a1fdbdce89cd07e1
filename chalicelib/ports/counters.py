"""Counters of the change stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.metrics.counters import CounterIncrement, CountMark

CounterKey = tuple[str, str]  # the two keys of a counter
VERSION = "version"  # of a counter: how often it was changed


@dataclass(frozen=True, slots=True)
class MarkUpdate:
    """A job's mark as it was seen, and as it is to be; `ttl` in seconds since 1970."""

    seen: CountMark
    new: CountMark
    ttl: int


class Counters(Protocol):
    """Counters, each a few whole numbers, and the mark of each job that was counted."""

    def marks(self, job_ids: Sequence[str], *, consistent: bool = False) -> dict[str, CountMark]:
        """The marks that exist, a request for each hundred."""

    def increment(self, marked: Sequence[MarkUpdate], adds: Sequence[CounterIncrement]) -> None:
        """Swap the marks in and add to the counters, all or nothing: one transaction, so at most a hundred of both. Each counter that is
        added to says by its version that it was.

        Raises:
            StaleVersion: a mark is no longer the one that was seen. So it is for a repetition of what had been done.
        """

    def get(self, places: Sequence[CounterKey]) -> dict[CounterKey, dict[str, int]]:
        """The counters that exist, read consistently."""

    def query(self, pk: str, limit: int) -> dict[str, dict[str, int]]:
        """The first counters of a partition, by their second key, read consistently: one request."""

    def overwrite(self, place: CounterKey, version: int, numbers: Mapping[str, int], ttl: int) -> bool:
        """Let a counter say just this, if its version is still the one that was seen. False: it is not."""
