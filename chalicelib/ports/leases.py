"""Leases of the workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from chalicelib.domain.units import Ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One invocation of a worker: until when it is alive, and which jobs it holds.

    Operators see it as a worker.
    """

    id: str
    lane: str  # the queue whose worker it is, a key of `JOB_QUEUES`
    expires_at: Ms
    started_at: Ms
    jobs: tuple[str, ...] = ()
    environment: str = ""
    # By tenant: when the longest waiting of its jobs became ready, ten at most. Jobs of the tenant that
    # entered the queue later are behind it. Empty: its wake-ups came from no queue of their own.
    watermarks: Mapping[str, Ms] = field(default_factory=dict)
    watermark: Ms = 0  # the oldest of these, for the previous version, whose leases have only this one
    fenced: bool = False  # declared dead: its jobs are being recovered


class Leases(Protocol):
    """Stores the leases that are open, and the fenced ones until their jobs are recovered."""

    def open(self, lease: Lease) -> None:
        """Store a new lease."""

    def renew(self, lease: Lease) -> None:
        """Extend the lease to its `expires_at`.

        Raises:
            StaleVersion: it was fenced; the worker no longer owns its jobs.
        """

    def close(self, lease: Lease) -> None:
        """Delete the lease, unless it was fenced."""

    def get(self, lease_id: str) -> Lease | None:
        """Return the lease, read consistently; also a fenced one."""

    def all(self) -> list[Lease]:
        """Return all leases that can be read, read consistently. Eight requests."""

    def fence(self, seen: Lease) -> bool:
        """Declare a lease dead if it has not been renewed since it was read.

        Then it can no longer be renewed. Repeating it returns True again.
        """

    def delete_fenced(self, lease: Lease) -> None:
        """Delete a fenced lease, after its jobs were recovered."""
