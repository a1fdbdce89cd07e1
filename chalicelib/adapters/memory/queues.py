"""The queues in memory."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.queues.lanes import JOB_QUEUES, TASK_QUEUES, TASK_TIMEOUT, VISIBILITY_TIMEOUT
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock, DeadLetter, QueueMessage


@dataclass(slots=True)
class Message:
    """A message as SQS stores it: hidden until `visible_at`, deleted only when it is acknowledged."""

    id: str
    body: str
    tenant: str
    visible_at: Ms
    receipt: str = ""
    receives: int = 0


class MemoryQueues:
    """Queues by name, with a clock that hides delayed and received messages.

    Tests may use `messages` (what a queue holds), `dead_lettered` (all that was ever sent to its
    dead-letter queue, as (body, reason)), `dead` (what the dead-letter queue holds, with reasons)
    and `sent` (every wake-up ever sent, for tests that deliver all of them again).
    """

    def __init__(self, clock: Clock) -> None:
        self.messages: dict[str, list[Message]] = {name: [] for name in (*JOB_QUEUES, *TASK_QUEUES)}
        self.dead_lettered: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self.dead: defaultdict[str, list[tuple[Message, str | None]]] = defaultdict(list)
        self.sent: list[tuple[str, WakeUp]] = []
        self._clock = clock
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def send(self, queue: str, wake_up: WakeUp, tenant: str, delay: int = 0) -> None:
        if not 0 <= delay <= 900:
            raise ValueError(f"SQS delays a message by 0 to 900 seconds, not by {delay}")
        with self._lock:
            self.sent.append((queue, wake_up))
            self._put(queue, wake_up.to_json(), tenant, delay)

    def send_many(self, queue: str, wake_ups: Sequence[WakeUp], tenant: str) -> None:
        for wake_up in wake_ups:
            self.send(queue, wake_up, tenant)

    def send_released(self, queue: str, wake_ups: Sequence[tuple[WakeUp, str]]) -> None:
        for wake_up, tenant in wake_ups:
            self.send(queue, wake_up, tenant)

    def send_task(self, queue: str, body: str, tenant: str, delay: int = 0) -> None:
        if not 0 <= delay <= 900:
            raise ValueError(f"SQS delays a message by 0 to 900 seconds, not by {delay}")
        with self._lock:
            self._put(queue, body, tenant, delay)

    def acknowledge(self, queue: str, receipts: Sequence[str]) -> None:
        if len(receipts) > 10:
            raise ValueError("SQS deletes at most ten messages at once")
        with self._lock:
            self.messages[queue] = [message for message in self.messages[queue] if message.receipt not in receipts]

    def send_to_dead_letter(self, queue: str, body: str, reason: str) -> None:
        with self._lock:
            self.dead_lettered[queue].append((body, reason))
            self._put_dead(queue, body, reason)

    def depth(self, queue: str) -> int:
        now = self._clock.now()
        with self._lock:
            return sum(message.visible_at <= now for message in self.messages[queue])

    def dead_letters(self, queue: str) -> int:
        now = self._clock.now()
        with self._lock:
            return sum(message.visible_at <= now for message, _ in self.dead[queue])

    def receive_dead(self, queue: str) -> list[DeadLetter]:
        now = self._clock.now()
        with self._lock:
            due = [(message, reason) for message, reason in self.dead[queue] if message.visible_at <= now][:10]
            for message, _ in due:
                message.visible_at = now + 60_000
                message.receives += 1
                message.receipt = f"{message.id}-{message.receives}"
            return [DeadLetter(message.body, message.receipt, reason) for message, reason in due]

    def delete_dead(self, queue: str, receipts: Sequence[str]) -> None:
        if len(receipts) > 10:
            raise ValueError("SQS deletes at most ten messages at once")
        with self._lock:
            self.dead[queue] = [(message, reason) for message, reason in self.dead[queue] if message.receipt not in receipts]

    def give_up(self, queue: str, body: str) -> None:
        """Put a message in the dead-letter queue, as SQS does after too many receives."""
        with self._lock:
            self._put_dead(queue, body, None)

    def put_raw(self, queue: str, body: str) -> None:
        """Put any text in the queue, as an operator could at the console."""
        with self._lock:
            self._put(queue, body, "", 0)

    def receive(self, queue: str, limit: int = 10) -> list[QueueMessage]:
        """Receive up to `limit` messages.

        They are hidden for the visibility timeout of the real queue.
        """
        now = self._clock.now()
        with self._lock:
            due = [message for message in self.messages[queue] if message.visible_at <= now][:limit]
            for message in due:
                message.visible_at = now + (VISIBILITY_TIMEOUT if queue in JOB_QUEUES else TASK_TIMEOUT + 60) * 1000
                message.receives += 1
                message.receipt = f"{message.id}-{message.receives}"
            return [QueueMessage(message.body, message.receipt, message.id) for message in due]

    def _put_dead(self, queue: str, body: str, reason: str | None) -> None:
        self.dead[queue].append((Message(f"d{next(self._ids)}", body, "", self._clock.now()), reason))

    def _put(self, queue: str, body: str, tenant: str, delay: int) -> None:
        self.messages[queue].append(Message(f"m{next(self._ids)}", body, tenant, self._clock.now() + delay * 1000))
