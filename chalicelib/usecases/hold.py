"""Hold a request for a while, until there is something to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.job import Job, Ms
from chalicelib.ports import Clock, Slots, Watchers
from chalicelib.usecases.engine import Log

T = TypeVar("T")
SLOTS_NAME = "held"
READS_FOR_MS = 10_000  # how long somebody who waits counts as a reader, so that the worker keeps the text more often
NOTED_EVERY_MS = 5_000


@dataclass(frozen=True, kw_only=True)
class Holding:
    """`size` requests may be held at once: each keeps a function busy, and watchers must never starve submitters."""

    clock: Clock
    log: Log
    semaphores: Slots
    subscriptions: Watchers
    max_long_polls: int
    poll_interval: float = 0.4  # seconds between two looks


def hold(holding: Holding, seconds: float, look: Callable[[], T | None]) -> T | None:
    """The first answer of `look` that is not None, within `seconds`. Without a free slot it looks once."""
    answer = look()
    if answer is not None or seconds <= 0:
        return answer
    clock = holding.clock
    until = clock.now() + round(seconds * 1000)
    slot = _slot(holding, until + 5_000)
    if slot is None:
        return None
    try:
        while answer is None and clock.now() < until:
            clock.sleep(min(holding.poll_interval, max(0.0, (until - clock.now()) / 1000)))
            answer = look()
    finally:
        _give_back(holding, slot)
    return answer


class ReadAlong:
    """Asks the worker to keep a job's text every second while a held request waits for it; nobody waits in vain if that fails."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self._next: Ms = 0

    def announce(self, job: Job) -> None:
        now = self._holding.clock.now()
        if job.status.is_terminal or now < self._next:
            return
        self._next = now + NOTED_EVERY_MS
        try:
            self._holding.subscriptions.announce_reader(job.id, now + READS_FOR_MS)
        except Unavailable as exc:
            self._holding.log("a reader was not noted", job_id=job.id, error=exc)


def _slot(holding: Holding, until: Ms) -> int | None:
    try:
        return holding.semaphores.acquire(SLOTS_NAME, holding.max_long_polls, until, holding.clock.now())
    except Unavailable as exc:
        holding.log("no slot could be taken", error=exc)
        return None


def _give_back(holding: Holding, slot: int) -> None:
    try:
        holding.semaphores.release(SLOTS_NAME, slot)
    except Unavailable as exc:  # it comes back by itself
        holding.log("a slot was not given back", error=exc)
