"""What may vanish: who watches, who works, what is counted for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.execution.response_cache import CachedResponse
from chalicelib.domain.jobs.bulk_operation import BulkOperation
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.streaming.subscriptions import Connection, JobControl, Subscription, Ticket
from chalicelib.domain.units import Ms


class Subscriptions(Protocol):
    """Subscriptions of connections to jobs, and each job's bell."""

    def add(self, watcher: Subscription) -> None:
        """Put the row, then ring the bell: two requests, in this order."""

    def remove(self, job_id: str, connection_id: str) -> None: ...

    def for_job(self, job_id: str) -> list[Subscription]:
        """Everybody who watches, read consistently."""

    def request_cancel(self, job_id: str, generation: int, ttl: int) -> None:
        """Tell the worker of this generation, which looks here once a second, to stop."""

    def announce_reader(self, job_id: str, until: Ms) -> None:
        """Tell the worker that somebody reads the log."""

    def controls(self, job_ids: Sequence[str]) -> dict[str, JobControl]:
        """The controls of many jobs in one request; those without one are left out."""


class Connections(Protocol):
    def open(self, connection: Connection) -> None: ...

    def get(self, connection_id: str) -> Connection | None: ...

    def subscribe(self, connection_id: str, job_id: str) -> bool:
        """Note the subscription. False: the connection has as many as it may, or is not known."""

    def unsubscribe(self, connection_id: str, job_id: str) -> None: ...

    def close(self, connection_id: str) -> Connection | None:
        """Forget the connection; the answer says what it was subscribed to."""

    def sample(self, part: int, limit: int) -> list[Connection]:
        """At most `limit` connections of one of the eight parts that all are in: one or two requests.

        If there are more, others each time.
        """


class Tickets(Protocol):
    def put(self, ticket: Ticket) -> None: ...

    def get(self, ticket_hash: str) -> Ticket | None: ...

    def use(self, ticket_hash: str, connection_id: str) -> bool:
        """Mark it as used by one connection. False: another has used it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One invocation of a worker: what it holds and until when it is alive. Also what operators see as a worker.

    `watermark`: since when the job that had waited longest was ready, of those that it was handed; what came into the lane later is
    behind it. `fenced`: it was declared dead, and what it holds is being given to others.
    """

    id: str
    lane: str
    expires_at: Ms
    started_at: Ms
    jobs: tuple[str, ...] = ()
    environment: str = ""
    watermark: Ms = 0
    fenced: bool = False


class Leases(Protocol):
    def open(self, lease: Lease) -> None: ...

    def renew(self, lease: Lease) -> None:
        """Extend it to its `expires_at`.

        Raises:
            StaleVersion: it was fenced: everything it held belongs to others now.
        """

    def close(self, lease: Lease) -> None:
        """Forget it, unless it was fenced."""

    def get(self, lease_id: str) -> Lease | None:
        """The lease, read consistently; fenced ones too."""

    def all(self) -> list[Lease]:
        """Every lease that is open, or fenced and not buried yet, read consistently: eight requests."""

    def fence(self, seen: Lease) -> bool:
        """Declare it dead if it has not been renewed since it was read: its worker can renew no more. Repeating it is True again."""

    def delete_fenced(self, lease: Lease) -> None:
        """Forget a fenced lease, once all that it held is with others."""


class CircuitBreakers(Protocol):
    """What is known of each model's circuit. A model of which nothing is known is not there."""

    def all(self) -> list[CircuitBreaker]:
        """All that are known, in one request, not read consistently."""

    def get(self, model: str) -> CircuitBreaker | None:
        """One, read consistently."""

    def replace(self, seen: CircuitBreaker, new: CircuitBreaker) -> None:
        """Swap `new` in for `seen`, if the version is still the one seen (0: nothing is there). One that had been done succeeds.

        Raises:
            StaleVersion: it moved on; `current` is what is there.
        """


class ResponseCache(Protocol):
    """Whose answer may serve again, by the key of its request. A row may be there beyond its end: readers compare times."""

    def get(self, tenant: str, key: str) -> CachedResponse | None:
        """Not read consistently: a miss more does no harm."""

    def put(self, tenant: str, key: str, cached: CachedResponse) -> None:
        """The latest stays."""


class BulkOperations(Protocol):
    """Bulk actions, each kept for a week after its last step."""

    def create(self, bulk: BulkOperation) -> None:
        """Put a new one; what is there already stays. First what names it as unfinished, so that it is never forgotten."""

    def get(self, tenant: str, bulk_id: str) -> BulkOperation | None: ...

    def replace(self, seen: BulkOperation, new: BulkOperation) -> None:
        """Swap `new` in for `seen`, if the version is still the one seen. A swap that had been done already succeeds.

        Raises:
            StaleVersion: it moved on; `current` is what is there.
        """

    def unfinished(self, now: Ms, limit: int) -> list[BulkOperation]:
        """Those that are unfinished and that nobody works on, the oldest first: one request, and one each."""


class Semaphores(Protocol):
    """A bounded number of something, each taken for a time: a crash gives it back by itself."""

    def acquire(self, name: str, size: int, until: Ms, now: Ms) -> int | None:
        """A free slot of `size`, None if there seems to be none."""

    def release(self, name: str, slot: int) -> None: ...


class RequestCounters(Protocol):
    def increment(self, name: str, window: int, ttl: int) -> int:
        """Count one more in the window that is named, and say how many there are now."""
