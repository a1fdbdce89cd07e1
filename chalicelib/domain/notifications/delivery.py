"""A message on its way to one recipient: what was tried, and when it is tried again. Pure values that return the next one.

At least once: whoever dies between sending and writing so has it sent again. Receivers tell doubles by the id of the message.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256

from chalicelib.domain.notifications.recipients import Channel, Recipient
from chalicelib.domain.units import DAY_MS, Ms

# Seconds before the second, third ... attempt: 23.6 hours in all, so that the last falls within the day.
RETRY_SCHEDULE = (5, 30, 300, 1_800, 7_200, 18_000, 28_800, 28_800)
JITTER = 0.2  # up to so much of a pause is left out by chance: messages that failed together do not come back together
MAX_RETRY_AFTER = 3_600.0  # seconds
MAX_DELAY_MS = 900_000  # of a queue's message; what is due later, the sweep sends
LOCK_MS = 60_000  # who has taken it up is left alone for so long
STALLED_MS = 120_000  # after which the sweep looks at what its message should have brought up
RECHECK_MS = 300_000
CLOCK_TOLERANCE_MS = 2_000  # a queue's delay and our clocks do not agree to the millisecond
MAX_ATTEMPTS_KEPT = 20


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """One attempt as it went. `error` is None where it succeeded; it never holds what the other side answered."""

    at: Ms
    ms: int
    status: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOutcome:
    """What an attempt came to. `final`: trying again would be in vain, or is not wanted."""

    ms: int
    status: int | None = None
    error: str | None = None
    retry_after: float | None = None
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """`owner` is the job or batch that the message is about. `subject` and `text` are sent as they stand here: the same each time.

    `due_at` is when it is to be tried, `until` when that ends; `worked_until`: somebody is at it. `look_at` is when the sweep looks
    whether it was forgotten. `tried` counts attempts since it was last begun, `tries` are the last of all.
    """

    id: str
    owner: str
    tenant: str
    channel: Channel
    address: str
    event: str
    message_id: str
    subject: str
    payload: str
    created_at: Ms
    due_at: Ms
    expires_at: Ms
    recheck_at: Ms
    state: DeliveryState = DeliveryState.PENDING
    version: int = 1
    attempt_count: int = 0
    locked_until: Ms = 0
    ended_at: Ms | None = None
    attempts: tuple[DeliveryAttempt, ...] = ()

    @property
    def recipient(self) -> Recipient:
        return Recipient(self.channel, self.address)

    @property
    def is_open(self) -> bool:
        return self.state is DeliveryState.PENDING


def delivery_id(message_id: str, recipient: Recipient) -> str:
    """The same for the same message to the same recipient, so that it is made once."""
    return f"dlv_{sha256('|'.join((message_id, recipient.channel, recipient.address)).encode()).hexdigest()[:32]}"


def claim(delivery: Delivery, now: Ms) -> Delivery | None:
    """Taken up by whoever writes this; None: it has ended, is not due yet, or somebody is at it."""
    if not delivery.is_open or delivery.locked_until > now or delivery.due_at > now + CLOCK_TOLERANCE_MS:
        return None
    return replace(delivery, version=delivery.version + 1, attempt_count=delivery.attempt_count + 1, locked_until=now + LOCK_MS)


def record_attempt(delivery: Delivery, outcome: DeliveryOutcome, now: Ms, random: float) -> Delivery:
    """The delivery after an attempt. `random` is in [0, 1)."""
    tried = DeliveryAttempt(at=now - outcome.ms, ms=outcome.ms, status=outcome.status, error=outcome.error)
    after = replace(delivery, version=delivery.version + 1, locked_until=0, attempts=(*delivery.attempts, tried)[-MAX_ATTEMPTS_KEPT:])
    if outcome.error is None:
        return replace(after, state=DeliveryState.DELIVERED, ended_at=now)
    due = None if outcome.final else _next(delivery, outcome, now, random)
    if due is None:
        return replace(after, state=DeliveryState.FAILED, ended_at=now)
    return replace(after, due_at=due, recheck_at=due if due - now > MAX_DELAY_MS else due + STALLED_MS)


def _next(delivery: Delivery, outcome: DeliveryOutcome, now: Ms, random: float) -> Ms | None:
    if delivery.attempt_count > len(RETRY_SCHEDULE):
        return None
    pause = RETRY_SCHEDULE[delivery.attempt_count - 1] * (1 - JITTER * random)
    if outcome.retry_after is not None and outcome.retry_after > 0:
        pause = max(pause, min(outcome.retry_after, MAX_RETRY_AFTER))
    due = now + round(pause * 1000)
    return due if due <= delivery.expires_at else None


def postpone_recheck(delivery: Delivery, now: Ms) -> Delivery:
    """It was sent a message: the sweep leaves it alone for a while."""
    return replace(delivery, version=delivery.version + 1, recheck_at=max(now, delivery.due_at) + RECHECK_MS)


def restart(delivery: Delivery, now: Ms) -> Delivery | None:
    """From the start, for another day, because a person wants it; None: somebody is at it this moment."""
    if delivery.locked_until > now:
        return None
    return replace(
        delivery,
        version=delivery.version + 1,
        state=DeliveryState.PENDING,
        attempt_count=0,
        locked_until=0,
        ended_at=None,
        due_at=now,
        expires_at=now + DAY_MS,
        recheck_at=now + STALLED_MS,
    )


def message_delay(delivery: Delivery, now: Ms) -> int | None:
    """Seconds by which its message is to be delayed; None: longer than a queue can, so that the sweep sends it."""
    left = max(0, delivery.due_at - now)
    return -(-left // 1000) if left <= MAX_DELAY_MS else None
