"""The queues: one for each lane and each kind of task, each with a dead-letter queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.queues.wakeup import WakeUp


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """A message as a worker receives it."""

    body: str
    receipt: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of a dead-letter queue.

    `reason` is None if the queue moved it there after too many receives.
    """

    body: str
    receipt: str
    reason: str | None = None


class Queues(Protocol):
    """Sends and deletes messages. Delivery is at least once and in no order.

    Delays are 0 to 900 seconds.
    """

    def send(self, lane: str, wake_up: WakeUp, tenant: str, delay: int = 0) -> None:
        """Send one wake-up to a lane."""

    def send_many(self, lane: str, wake_ups: Sequence[WakeUp], tenant: str) -> None:
        """Send wake-ups to a lane, one request for each ten.

        Raises:
            Unavailable: some may not have been sent.
        """

    def send_task(self, queue: str, body: str, tenant: str, delay: int = 0) -> None:
        """Send a task message to a task queue."""

    def acknowledge(self, lane: str, receipts: Sequence[str]) -> None:
        """Delete at most ten received messages."""

    def send_to_dead_letter(self, lane: str, body: str, reason: str) -> None:
        """Send an unprocessable message to the dead-letter queue of a lane, for operators to read."""

    def depth(self, lane: str) -> int:
        """Return about how many messages are visible: neither delayed nor received ones.

        Cached for some seconds.
        """

    def dead_letters(self, lane: str) -> int:
        """Return about how many dead letters a lane or the change stream has.

        Cached for some seconds.
        """

    def receive_dead(self, lane: str) -> list[DeadLetter]:
        """Receive up to ten dead letters, which are hidden from other calls for a minute.

        Waits up to a second.
        """

    def delete_dead(self, lane: str, receipts: Sequence[str]) -> None:
        """Delete at most ten received dead letters."""
