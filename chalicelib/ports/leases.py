"""Leases of the workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.units import Ms


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
