"""What work that is no OpenAI call needs: objects that it makes, and the limits of its kind."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.limits.type_limiter import TypeLimiter
from chalicelib.domain.units import Ms


class FileWriter(Protocol):
    """An object in the making. Nobody sees anything of it before `close`; an older one of its name stays until then."""

    def write(self, data: bytes) -> None:
        """Put some more behind what there is; it is sent on in pieces of a few MB, so that no memory holds it all."""

    def close(self) -> int:
        """Let it be there, and say how many bytes it has."""

    def abort(self) -> None:
        """Leave nothing of it."""


class JobFiles(Protocol):
    """Objects that jobs make, in each job's own folder: whoever removes the job removes them."""

    def create(self, tenant: str, job_id: str, name: str, content_type: str) -> FileWriter: ...

    def size(self, tenant: str, job_id: str, name: str) -> int | None:
        """How many bytes it has; None if it is not there (any more)."""

    def link(self, tenant: str, job_id: str, name: str, seconds: int) -> str:
        """An address from which anybody who has it may save the object for some time, under its name."""


class TypeLimiters(Protocol):
    """What is known of each kind of work that has limits. A kind of which nothing is known is not there."""

    def get(self, job_type: str) -> TypeLimiter | None:
        """One, read consistently."""

    def replace(self, seen: TypeLimiter, new: TypeLimiter, now: Ms) -> None:
        """Swap `new` in for `seen`, if the version is still the one seen (0: nothing is there). One that had been done succeeds.

        Raises:
            StaleVersion: it moved on; `current` is what is there.
        """
