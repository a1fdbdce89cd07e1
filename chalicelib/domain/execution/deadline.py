"""When an invocation's time is over, and what may still be done before it is."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.domain.units import Ms

HANDOVER_MARGIN_MS = 45_000  # for the last chunk, the record, the farewell to sockets, and a store that is slow meanwhile
START_MARGIN_MS = 120_000  # what begins now should have a while to answer


@dataclass(frozen=True, slots=True)
class Deadline:
    """An invocation that began at `began` is ended by Lambda at `at`, in the middle of whatever it does.

    The margins are parts of a short invocation, so that one of any length has some time for its work.
    """

    started_at: Ms
    ends_at: Ms

    @property
    def last_start_at(self) -> Ms:
        """Nothing is begun any more from here on."""
        return self.ends_at - min(START_MARGIN_MS, self._length // 3)

    @property
    def handover_at(self) -> Ms:
        """What is not done by now is handed on."""
        return self.ends_at - min(HANDOVER_MARGIN_MS, self._length // 5)

    @property
    def _length(self) -> int:
        return max(0, self.ends_at - self.started_at)
