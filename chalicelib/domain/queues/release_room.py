"""How many released jobs the queue `ready` may take, so that their grants do not expire in it."""

from __future__ import annotations

from collections import deque

from chalicelib.domain.units import Ms

GOOD_SECONDS = 1.0  # how long a released job may stay in the queue: a third of what a grant is good for
MIN_WAITING, MAX_WAITING = 10, 100  # messages; fewer never starve the workers, more never pile up at once
MEASURED_MS = 5_000


class ReleaseRoom:
    """Measures how fast the queue is emptied."""

    def __init__(self) -> None:
        self._sent = 0
        self._seen: deque[tuple[Ms, int]] = deque()  # when, and how many messages had left the queue by then

    def sent(self, messages: int) -> None:
        """Note that messages were sent to the queue."""
        self._sent += messages

    def room(self, depth: int, now: Ms) -> int:
        """Return how many more messages it may take.

        Args:
            depth: of the queue, with what was sent since it was read.
        """
        self._seen.append((now, self._sent - depth))
        while len(self._seen) > 2 and now - self._seen[1][0] >= MEASURED_MS:
            self._seen.popleft()
        if depth <= 0:
            return MAX_WAITING
        (since, left), (_, now_left) = self._seen[0], self._seen[-1]
        emptied = max(0, now_left - left) / max(0.5, (now - since) / 1000)  # a second
        return max(0, min(MAX_WAITING, max(MIN_WAITING, round(GOOD_SECONDS * emptied))) - depth)
