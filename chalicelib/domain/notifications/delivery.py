"""The delivery of one message to one recipient: its attempts, and when it is retried.

Pure functions return the next value.

Delivery is at least once: if a dispatcher dies between sending and recording it, the message is
sent again. Receivers recognise duplicates by the message id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any

from chalicelib.domain.notifications.recipients import Channel, Recipient
from chalicelib.domain.units import DAY_MS, Ms

# Seconds before the second, third ... attempt. 23.6 hours in total, so that the last attempt is
# within a day.
RETRY_SCHEDULE = (5, 30, 300, 1_800, 7_200, 18_000, 28_800, 28_800)
# A random share of the delay up to this is left out, so that messages that failed together are
# spread.
JITTER = 0.2
MAX_RETRY_AFTER = 3_600.0  # seconds
MAX_DELAY_SECONDS = 900  # of a queue message; for a later delivery the message is sent on when it arrives
LOCK_MS = 60_000  # how long a claimed delivery belongs to its dispatcher
STALLED_MS = 120_000  # after the due time, the sweeper checks whether the queue message was lost
RECHECK_MS = 300_000  # until the sweeper's next check; later ones wait as long as the delivery is overdue
# A name may resolve to a forbidden address for a while, because of a fault of its DNS. So many
# attempts in a row must find it so, with this pause between them, before the delivery is given up.
MAX_FORBIDDEN_IN_A_ROW = 3
FORBIDDEN_PAUSE = 300.0  # seconds, at least
CLOCK_TOLERANCE_MS = 2_000  # the delay of a queue and the clock of a worker differ by milliseconds
MAX_ATTEMPTS_KEPT = 20


class DeliveryState(StrEnum):
    PENDING = "pending"  # not delivered yet; it is retried
    DELIVERED = "delivered"  # the recipient accepted it
    FAILED = "failed"  # given up: a final error, or no attempt is left within a day


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """One recorded attempt."""

    at: Ms  # when it started
    ms: int  # duration
    status: int | None = None  # HTTP status
    # None: it succeeded. Never contains the response body, which may hold secrets.
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOutcome:
    """The outcome of an attempt, from which `record_attempt` decides what follows."""

    ms: int  # duration
    status: int | None = None  # HTTP status
    error: str | None = None  # None: it succeeded
    retry_after: float | None = None  # seconds, as the recipient asked for
    final: bool = False  # a retry cannot succeed or is not allowed
    forbidden: bool = False  # the name of the host resolved to an address that may not be reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The stored record of a delivery."""

    id: str
    owner: str  # id of the job or batch that the message is about
    tenant: str
    channel: Channel
    address: str  # of the recipient, see `Recipient`
    event: str  # type of the message, such as `job.completed`
    message_id: str
    subject: str
    payload: str  # sent unchanged at every attempt
    created_at: Ms
    due_at: Ms  # when the next attempt is due
    expires_at: Ms  # no attempt is made after this time
    recheck_at: Ms  # when the sweeper checks whether its queue message was lost
    state: DeliveryState = DeliveryState.PENDING
    version: int = 1
    attempt_count: int = 0  # since the start or the last restart
    locked_until: Ms = 0  # until then it belongs to the dispatcher that claimed it
    ended_at: Ms | None = None
    # The latest attempts in a row for which the name of the host resolved to a forbidden address.
    forbidden_in_a_row: int = 0
    # The last `MAX_ATTEMPTS_KEPT`, including those before a restart.
    attempts: tuple[DeliveryAttempt, ...] = ()
    # Fields that only a newer version of the code knows: they are stored again unchanged.
    unknown_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipient(self) -> Recipient:
        return Recipient(self.channel, self.address)

    @property
    def is_open(self) -> bool:
        return self.state is DeliveryState.PENDING


def delivery_id(message_id: str, recipient: Recipient) -> str:
    """Return an id derived from message and recipient, so that each gets the message once."""
    return f"dlv_{sha256('|'.join((message_id, recipient.channel, recipient.address)).encode()).hexdigest()[:32]}"


def is_due(delivery: Delivery, now: Ms) -> bool:
    """Whether its next attempt may start."""
    return delivery.due_at <= now + CLOCK_TOLERANCE_MS


def claim(delivery: Delivery, now: Ms) -> Delivery | None:
    """Lock the delivery for one attempt.

    Returns None if it has ended, is not due, or belongs to another dispatcher.
    """
    if not delivery.is_open or delivery.locked_until > now or not is_due(delivery, now):
        return None
    return replace(delivery, version=delivery.version + 1, attempt_count=delivery.attempt_count + 1, locked_until=now + LOCK_MS)


def record_attempt(delivery: Delivery, outcome: DeliveryOutcome, now: Ms, random: float) -> Delivery:
    """Record an attempt and decide what follows: delivered, retried or failed.

    `random` is in [0, 1), for the jitter.
    """
    attempt = DeliveryAttempt(at=now - outcome.ms, ms=outcome.ms, status=outcome.status, error=outcome.error)
    after = replace(
        delivery,
        version=delivery.version + 1,
        locked_until=0,
        forbidden_in_a_row=delivery.forbidden_in_a_row + 1 if outcome.forbidden else 0,
        attempts=(*delivery.attempts, attempt)[-MAX_ATTEMPTS_KEPT:],
    )
    if outcome.error is None:
        return replace(after, state=DeliveryState.DELIVERED, ended_at=now)
    is_final = outcome.final or after.forbidden_in_a_row >= MAX_FORBIDDEN_IN_A_ROW
    due_at = None if is_final else _retry_at(delivery, outcome, now, random)
    if due_at is None:
        return replace(after, state=DeliveryState.FAILED, ended_at=now)
    return replace(after, due_at=due_at, recheck_at=due_at + STALLED_MS)


def _retry_at(delivery: Delivery, outcome: DeliveryOutcome, now: Ms, random: float) -> Ms | None:
    """Return when to retry, or None if the attempts are used up or the delivery expires before."""
    if delivery.attempt_count > len(RETRY_SCHEDULE):
        return None
    delay = RETRY_SCHEDULE[delivery.attempt_count - 1] * (1 - JITTER * random)
    if outcome.retry_after is not None and outcome.retry_after > 0:
        delay = max(delay, min(outcome.retry_after, MAX_RETRY_AFTER))
    if outcome.forbidden:
        delay = max(delay, FORBIDDEN_PAUSE)
    due_at = now + round(delay * 1000)
    return due_at if due_at <= delivery.expires_at else None


def postpone_recheck(delivery: Delivery, now: Ms) -> Delivery:
    """Schedule the sweeper's next check, after a queue message was sent for it.

    The interval doubles: the message may not be lost but wait in a deep queue, which would
    otherwise fill with copies.
    """
    return replace(delivery, version=delivery.version + 1, recheck_at=now + max(RECHECK_MS, now - delivery.due_at))


def restart(delivery: Delivery, now: Ms) -> Delivery | None:
    """Start the delivery again for another day, on a user's request.

    Returns None if an attempt is in progress.
    """
    if delivery.locked_until > now:
        return None
    return replace(
        delivery,
        version=delivery.version + 1,
        state=DeliveryState.PENDING,
        attempt_count=0,
        locked_until=0,
        forbidden_in_a_row=0,
        ended_at=None,
        due_at=now,
        expires_at=now + DAY_MS,
        recheck_at=now + STALLED_MS,
    )


def message_delay(delivery: Delivery, now: Ms) -> int:
    """Return the delay of its queue message in seconds, at most what a queue allows."""
    return min(MAX_DELAY_SECONDS, -(-max(0, delivery.due_at - now) // 1000))
