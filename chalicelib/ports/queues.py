"""The queues: of wake-ups, of task messages and of deliveries, each with a dead-letter queue."""

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

    def send(self, queue: str, wake_up: WakeUp, tenant: str, delay: int = 0) -> None:
        """Send one wake-up to a queue; `domain/jobs/queue_routing.py` says to which."""

    def send_many(self, queue: str, wake_ups: Sequence[WakeUp], tenant: str) -> None:
        """Send wake-ups to a queue, one request for each ten.

        Raises:
            Unavailable: some may not have been sent.
        """

    def send_released(self, queue: str, wake_ups: Sequence[tuple[WakeUp, str]]) -> None:
        """Send wake-ups, each with its tenant, to a queue, one request for each ten.

        Raises:
            Unavailable: some may not have been sent.
        """

    def send_task(self, queue: str, body: str, tenant: str, delay: int = 0) -> None:
        """Send a message that is no wake-up to a task queue."""

    def acknowledge(self, queue: str, receipts: Sequence[str]) -> None:
        """Delete at most ten received messages."""

    def send_to_dead_letter(self, queue: str, body: str, reason: str) -> None:
        """Send an unprocessable message to the dead-letter queue of a queue, for operators to read."""

    def depth(self, queue: str) -> int:
        """Return about how many messages are visible: neither delayed nor received ones.

        Cached for some seconds.
        """

    def dead_letters(self, queue: str) -> int:
        """Return about how many dead letters a queue or the change stream has.

        Cached for some seconds.
        """

    def receive_dead(self, queue: str) -> list[DeadLetter]:
        """Receive up to ten dead letters, which are hidden from other calls for a minute.

        Waits up to a second.
        """

    def delete_dead(self, queue: str, receipts: Sequence[str]) -> None:
        """Delete at most ten received dead letters."""
