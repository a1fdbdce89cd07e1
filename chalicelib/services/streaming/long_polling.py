"""Long polling: delay the response to a request until there is something new, or time is over."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol, TypeVar

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms
from chalicelib.ports import Semaphores, Subscriptions
from chalicelib.services.context import Context

T = TypeVar("T")
SEMAPHORE_NAME = "held"
SHARE = 2  # a tenant may hold one in so many of the slots
POLL_INTERVAL_SECONDS = 0.4
PRESENCE_TTL_MS = 10_000  # how long the worker stores text more often after a reader was announced
PRESENCE_INTERVAL_MS = 5_000


class LongPollContext(Context, Protocol):
    """What long polling needs. Each waiting request occupies a function, hence `max_long_polls`."""

    @property
    def semaphores(self) -> Semaphores: ...
    @property
    def subscriptions(self) -> Subscriptions: ...
    @property
    def max_long_polls(self) -> int: ...


def long_poll(ctx: LongPollContext, tenant: str, seconds: float, check: Callable[[], T | None]) -> T | None:
    """Call `check` until it returns a value or `seconds` are over; without a slot only once.

    Args:
        tenant: whose request it is; it may hold half of all slots.
    """
    answer = check()
    if answer is not None or seconds <= 0:
        return answer
    clock = ctx.clock
    until = clock.now() + round(seconds * 1000)
    slot = _acquire_slot(ctx, tenant, until + 5_000)
    if slot is None:
        return None
    try:
        while answer is None and clock.now() < until:
            clock.sleep(min(POLL_INTERVAL_SECONDS, max(0.0, (until - clock.now()) / 1000)))
            answer = check()
    finally:
        _release_slot(ctx, slot)
    return answer


class ReaderPresence:
    """Announces a waiting reader, so that the worker stores the text every second. Best effort."""

    def __init__(self, ctx: LongPollContext) -> None:
        self._ctx = ctx
        self._next: Ms = 0

    def announce(self, job: Job) -> None:
        now = self._ctx.clock.now()
        if job.status.is_terminal or now < self._next:
            return
        self._next = now + PRESENCE_INTERVAL_MS
        try:
            self._ctx.subscriptions.announce_reader(job.id, now + PRESENCE_TTL_MS)
        except Unavailable as exc:
            self._ctx.log("reader_not_announced", job_id=job.id, error=exc)


def slots_of(tenant: str, size: int) -> list[int]:
    """Return the slots that a tenant may use: half of all, another half for each tenant.

    So a tenant with any number of waiting requests leaves half of the slots of any other tenant
    alone, on average, and no request has to be counted by tenant.
    """
    return Random(tenant).sample(range(size), max(1, size // SHARE))


def _acquire_slot(ctx: LongPollContext, tenant: str, until: Ms) -> int | None:
    try:
        return ctx.semaphores.acquire(SEMAPHORE_NAME, slots_of(tenant, ctx.max_long_polls), until, ctx.clock.now())
    except Unavailable as exc:
        ctx.log("long_poll_slot_failed", error=exc)
        return None


def _release_slot(ctx: LongPollContext, slot: int) -> None:
    try:
        ctx.semaphores.release(SEMAPHORE_NAME, slot)
    except Unavailable as exc:  # the slot expires by itself
        ctx.log("long_poll_slot_not_released", error=exc)
