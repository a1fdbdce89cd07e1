"""The deadline of a Lambda invocation: when to stop starting jobs, and when to hand over."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.domain.units import Ms

# To write the last chunk and the record and to notify subscribers, even with a slow store.
HANDOVER_MARGIN_MS = 45_000
START_MARGIN_MS = 120_000  # a job that starts should have some time for its answer


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time of one invocation.

    In a short one the margins shrink in proportion, so that some time for work remains.
    """

    started_at: Ms
    ends_at: Ms  # when Lambda kills the process

    @property
    def last_start_at(self) -> Ms:
        """When the worker stops starting jobs."""
        return self.ends_at - min(START_MARGIN_MS, self._length // 3)

    @property
    def handover_at(self) -> Ms:
        """When the worker hands running attempts over to another one."""
        return self.ends_at - min(HANDOVER_MARGIN_MS, self._length // 5)

    @property
    def _length(self) -> int:
        return max(0, self.ends_at - self.started_at)
