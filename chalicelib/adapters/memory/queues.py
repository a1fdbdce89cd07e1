"""The queues in memory."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.queues.lanes import LANES, TASK_QUEUES, TASK_TIMEOUT, VISIBILITY_TIMEOUT
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
        self.messages: dict[str, list[Message]] = {lane: [] for lane in (*LANES, *TASK_QUEUES)}
        self.dead_lettered: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self.dead: defaultdict[str, list[tuple[Message, str | None]]] = defaultdict(list)
        self.sent: list[tuple[str, WakeUp]] = []
        self._clock = clock
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def send(self, lane: str, wake_up: WakeUp, tenant: str, delay: int = 0) -> None:
        if not 0 <= delay <= 900:
            raise ValueError(f"SQS delays a message by 0 to 900 seconds, not by {delay}")
        with self._lock:
            self.sent.append((lane, wake_up))
            self._put(lane, wake_up.to_json(), tenant, delay)

    def send_many(self, lane: str, wake_ups: Sequence[WakeUp], tenant: str) -> None:
        for wake_up in wake_ups:
            self.send(lane, wake_up, tenant)

    def send_task(self, queue: str, body: str, tenant: str, delay: int = 0) -> None:
        if not 0 <= delay <= 900:
            raise ValueError(f"SQS delays a message by 0 to 900 seconds, not by {delay}")
        with self._lock:
            self._put(queue, body, tenant, delay)

    def acknowledge(self, lane: str, receipts: Sequence[str]) -> None:
        if len(receipts) > 10:
            raise ValueError("SQS deletes at most ten messages at once")
        with self._lock:
            self.messages[lane] = [message for message in self.messages[lane] if message.receipt not in receipts]

    def send_to_dead_letter(self, lane: str, body: str, reason: str) -> None:
        with self._lock:
            self.dead_lettered[lane].append((body, reason))
            self._put_dead(lane, body, reason)

    def depth(self, lane: str) -> int:
        now = self._clock.now()
        with self._lock:
            return sum(message.visible_at <= now for message in self.messages[lane])

    def dead_letters(self, lane: str) -> int:
        now = self._clock.now()
        with self._lock:
            return sum(message.visible_at <= now for message, _ in self.dead[lane])

    def receive_dead(self, lane: str) -> list[DeadLetter]:
        now = self._clock.now()
        with self._lock:
            due = [(message, reason) for message, reason in self.dead[lane] if message.visible_at <= now][:10]
            for message, _ in due:
                message.visible_at = now + 60_000
                message.receives += 1
                message.receipt = f"{message.id}-{message.receives}"
            return [DeadLetter(message.body, message.receipt, reason) for message, reason in due]

    def delete_dead(self, lane: str, receipts: Sequence[str]) -> None:
        if len(receipts) > 10:
            raise ValueError("SQS deletes at most ten messages at once")
        with self._lock:
            self.dead[lane] = [(message, reason) for message, reason in self.dead[lane] if message.receipt not in receipts]

    def give_up(self, lane: str, body: str) -> None:
        """Put a message in the dead-letter queue, as SQS does after too many receives."""
        with self._lock:
            self._put_dead(lane, body, None)

    def put_raw(self, lane: str, body: str) -> None:
        """Put any text in the queue, as an operator could at the console."""
        with self._lock:
            self._put(lane, body, "", 0)

    def receive(self, lane: str, limit: int = 10) -> list[QueueMessage]:
        """Receive up to `limit` messages.

        They are hidden for the visibility timeout of the real queue.
        """
        now = self._clock.now()
        with self._lock:
            due = [message for message in self.messages[lane] if message.visible_at <= now][:limit]
            for message in due:
                message.visible_at = now + (VISIBILITY_TIMEOUT if lane in LANES else TASK_TIMEOUT + 60) * 1000
                message.receives += 1
                message.receipt = f"{message.id}-{message.receives}"
            return [QueueMessage(message.body, message.receipt, message.id) for message in due]

    def _put_dead(self, lane: str, body: str, reason: str | None) -> None:
        self.dead[lane].append((Message(f"d{next(self._ids)}", body, "", self._clock.now()), reason))

    def _put(self, lane: str, body: str, tenant: str, delay: int) -> None:
        self.messages[lane].append(Message(f"m{next(self._ids)}", body, tenant, self._clock.now() + delay * 1000))
