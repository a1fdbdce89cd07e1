"""Counters that are kept up to date from the change stream of the jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.metrics.counters import CounterIncrement, CountMark

CounterKey = tuple[str, str]  # partition key and sort key
VERSION = "version"  # the number of a counter that says how often it was changed
WRITERS = 16  # parts of a counter beside its first one, for writers that come in each other's way


@dataclass(frozen=True, slots=True)
class MarkUpdate:
    """A job's mark as it was read, and the one that replaces it. `ttl` in seconds since 1970."""

    seen: CountMark
    new: CountMark
    ttl: int


class Counters(Protocol):
    """Stores counters, each a few named integers, and one mark for each counted job.

    The mark says what was counted of the job last. Mark and counters change in one transaction, so
    a change that is delivered twice is counted once (protocol rule 21: mark and counters in one
    transaction).
    """

    def marks(self, job_ids: Sequence[str], *, consistent: bool = False) -> dict[str, CountMark]:
        """Return the marks that exist, by job id. One request for each hundred."""

    def increment(self, marks: Sequence[MarkUpdate], increments: Sequence[CounterIncrement], writer: int = 0) -> None:
        """Replace the marks and add to the counters in one transaction of at most a hundred items.

        The `VERSION` of each counter grows by one.

        Args:
            writer: to which part of each counter is added, 0 to `WRITERS`. Two transactions on one
                part conflict if they meet. Readers get the sum of all parts.

        Raises:
            StaleVersion: a mark has changed since it was read, this transaction was made before, or
                it met another writer's. Read the marks again, and try as another `writer`.
        """

    def get(self, keys: Sequence[CounterKey]) -> dict[CounterKey, dict[str, int]]:
        """Return the counters that exist, read consistently. One request, or one for each
        five of many."""

    def query(self, pk: str, limit: int) -> dict[str, dict[str, int]]:
        """Return the first counters of a partition by sort key, read consistently. One request.

        There may be fewer than `limit` although more exist, if many of them have parts.
        """

    def overwrite(self, key: CounterKey, version: int, numbers: Mapping[str, int], ttl: int) -> bool:
        """Set a counter to these numbers if its version is still `version` (0: it does not exist).

        False if not.
        """
