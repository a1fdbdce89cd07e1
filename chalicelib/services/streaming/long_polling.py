"""Hold a request for a while, until there is something to answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms
from chalicelib.ports import Semaphores, Subscriptions
from chalicelib.services.context import Context

T = TypeVar("T")
SEMAPHORE_NAME = "held"
POLL_INTERVAL_SECONDS = 0.4
PRESENCE_TTL_MS = 10_000  # how long somebody who waits counts as a reader, so that the worker keeps the text more often
PRESENCE_INTERVAL_MS = 5_000


class LongPollContext(Context, Protocol):
    """What long polling needs. At most `max_long_polls` requests wait at once: each keeps a function busy."""

    @property
    def semaphores(self) -> Semaphores: ...
    @property
    def subscriptions(self) -> Subscriptions: ...
    @property
    def max_long_polls(self) -> int: ...


def long_poll(ctx: LongPollContext, seconds: float, look: Callable[[], T | None]) -> T | None:
    """The first answer of `look` that is not None, within `seconds`. Without a free slot it looks once."""
    answer = look()
    if answer is not None or seconds <= 0:
        return answer
    clock = ctx.clock
    until = clock.now() + round(seconds * 1000)
    slot = _slot(ctx, until + 5_000)
    if slot is None:
        return None
    try:
        while answer is None and clock.now() < until:
            clock.sleep(min(POLL_INTERVAL_SECONDS, max(0.0, (until - clock.now()) / 1000)))
            answer = look()
    finally:
        _give_back(ctx, slot)
    return answer


class ReaderPresence:
    """Asks the worker to keep a job's text every second while a held request waits for it; nobody waits in vain if that fails."""

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


def _slot(ctx: LongPollContext, until: Ms) -> int | None:
    try:
        return ctx.semaphores.acquire(SEMAPHORE_NAME, ctx.max_long_polls, until, ctx.clock.now())
    except Unavailable as exc:
        ctx.log("long_poll_slot_failed", error=exc)
        return None


def _give_back(ctx: LongPollContext, slot: int) -> None:
    try:
        ctx.semaphores.release(SEMAPHORE_NAME, slot)
    except Unavailable as exc:  # it comes back by itself
        ctx.log("long_poll_slot_not_released", error=exc)
