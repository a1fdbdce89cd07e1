"""The queues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.queues.wakeup import WakeUp


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """A message as a worker gets it."""

    body: str
    receipt: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of a dead-letter queue. `reason`: why it was set aside; None where it was only received too often."""

    body: str
    receipt: str
    reason: str | None = None


class Queues(Protocol):
    def send(self, lane: str, wake_up: WakeUp, tenant: str, delay: int = 0) -> None:
        """Send a wake-up; `delay` in seconds, 0-900."""

    def send_many(self, lane: str, wake_ups: Sequence[WakeUp], tenant: str) -> None:
        """Send wake-ups, one request for each ten.

        Raises:
            Unavailable: some may not have been sent.
        """

    def send_task(self, errands: str, body: str, tenant: str, delay: int = 0) -> None:
        """Send what is no wake-up to a queue that is no lane; `delay` as above."""

    def acknowledge(self, lane: str, receipts: Sequence[str]) -> None:
        """Delete messages, at most ten."""

    def send_to_dead_letter(self, lane: str, body: str, reason: str) -> None:
        """Put what is no wake-up where people see it: the lane's dead-letter queue."""

    def depth(self, lane: str) -> int:
        """About how many messages wait: neither those that are delayed nor those that a worker has. Remembered for some seconds."""

    def dead_letters(self, lane: str) -> int:
        """About how many messages lie in the lane's dead-letter queue, or in that of the change stream. Remembered for some seconds."""

    def receive_dead(self, lane: str) -> list[DeadLetter]:
        """Up to ten of its dead letters, hidden from the next call for a minute. It waits a second for them."""

    def delete_dead(self, lane: str, receipts: Sequence[str]) -> None:
        """Delete dead letters, at most ten."""
