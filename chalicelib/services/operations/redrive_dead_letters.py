"""Bring dead letters back: a dead letter is a hint, and the record decides what becomes of it [18]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from chalicelib.domain.errors import InvalidMessage
from chalicelib.domain.jobs.transitions import is_claimable
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.ports import Clock, DeadLetter, Jobs, Queues
from chalicelib.services.wake_up import send_wake_up

MAX_PER_LANE = 100  # dead letters of a lane, in one call
TIME_BUDGET_MS = 15_000


@dataclass(frozen=True, slots=True)
class Redriven:
    """By lane: `redriven` (woken again), `dropped` (nothing to wake), `kept` (no wake-up: for people). `more`: there may be."""

    lanes: dict[str, Counter[str]]
    more: bool


def redrive(clock: Clock, jobs: Jobs, queues: Queues, lanes: Iterable[str]) -> Redriven:
    """Go through the lanes' dead-letter queues, for a bounded time.

    A job that may be claimed gets a fresh wake-up with its present generation, then the dead letter is deleted: in this order, so that what
    dies in between leaves a hint too many and not one too few. What names no job, one that has ended, or one that somebody works on, is
    deleted. What is no wake-up stays.
    """
    until, counted, more = clock.now() + TIME_BUDGET_MS, {}, False
    for lane in lanes:
        counts: Counter[str] = Counter(redriven=0, dropped=0, kept=0)
        emptied = False
        while not emptied and counts.total() < MAX_PER_LANE and clock.now() < until:
            letters = queues.receive_dead(lane)
            emptied = not letters
            counts.update(_process_letters(clock, jobs, queues, lane, letters))
        counted[lane], more = counts, more or not emptied
    return Redriven(counted, more)


def _process_letters(clock: Clock, jobs: Jobs, queues: Queues, lane: str, letters: list[DeadLetter]) -> Counter[str]:
    wake_ups = {letter.receipt: wake_up for letter in letters if (wake_up := _wake_up(letter)) is not None}
    heads = jobs.get_many(list({wake_up.job_id for wake_up in wake_ups.values()}), consistent=True) if wake_ups else []
    present = {job.id: job for job in heads}
    counts: Counter[str] = Counter(kept=len(letters) - len(wake_ups))
    woken: set[str] = set()
    for wake_up in wake_ups.values():
        job = present.get(wake_up.job_id)
        wanted = job is not None and is_claimable(job)
        if job is not None and wanted and job.id not in woken:
            send_wake_up(queues, job, clock.now())
            woken.add(job.id)
        counts["redriven" if wanted else "dropped"] += 1
    if wake_ups:
        queues.delete_dead(lane, list(wake_ups))
    return counts


def _wake_up(letter: DeadLetter) -> WakeUp | None:
    """What was set aside stays, even if it should look like a wake-up."""
    try:
        return WakeUp.from_json(letter.body) if letter.reason is None else None
    except InvalidMessage:
        return None
