"""Redrive dead letters: the job's record decides (protocol rule 18: a dead letter is a hint)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.errors import InvalidMessage
from chalicelib.domain.jobs.transitions import is_claimable
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.ports import DeadLetter, Jobs
from chalicelib.services.context import QueueContext
from chalicelib.services.load_jobs import load_readable_jobs
from chalicelib.services.wake_up import send_wake_up

MAX_PER_QUEUE = 100  # dead letters per queue and call
TIME_BUDGET_MS = 15_000


class RedriveContext(QueueContext, Protocol):
    """What a redrive needs."""

    @property
    def jobs(self) -> Jobs: ...


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a redrive did, by queue: how many dead letters were `redriven`, `dropped` and `kept`.

    `dropped`: their job needs no wake-up. `kept`: not a wake-up, so a person has to look at it, or
    the wake-up of a job whose record cannot be read.
    `more`: dead letters may be left.
    """

    queues: dict[str, Counter[str]]
    more: bool


def redrive(ctx: RedriveContext, names: Iterable[str]) -> Redriven:
    """Process the dead-letter queues of these queues for at most `TIME_BUDGET_MS`.

    A claimable job gets a new wake-up with its present generation, in its own queue, then its dead letter is deleted:
    in this order, so that a crash in between loses no job. Wake-ups of jobs that are missing, ended
    or being processed are deleted. Messages that are not wake-ups stay, and those whose record another
    version of the code wrote.
    """
    clock, queues = ctx.clock, ctx.queues
    until, by_queue, more = clock.now() + TIME_BUDGET_MS, {}, False
    for queue in names:
        counts: Counter[str] = Counter(redriven=0, dropped=0, kept=0)
        emptied = False
        while not emptied and counts.total() < MAX_PER_QUEUE and clock.now() < until:
            letters = queues.receive_dead(queue)
            emptied = not letters
            counts.update(_process_letters(ctx, queue, letters))
        by_queue[queue], more = counts, more or not emptied
    return Redriven(by_queue, more)


def _process_letters(ctx: RedriveContext, queue: str, letters: list[DeadLetter]) -> Counter[str]:
    found = {letter.receipt: wake_up for letter in letters if (wake_up := _wake_up(letter)) is not None}
    loaded = load_readable_jobs(ctx.jobs, ctx.log, list({wake_up.job_id for wake_up in found.values()}), consistent=True)
    wake_ups = {receipt: wake_up for receipt, wake_up in found.items() if wake_up.job_id not in loaded.unreadable}
    by_id = {job.id: job for job in loaded.jobs}
    counts: Counter[str] = Counter(kept=len(letters) - len(wake_ups))
    woken: set[str] = set()
    for wake_up in wake_ups.values():
        job = by_id.get(wake_up.job_id)
        needs_wake_up = job is not None and is_claimable(job)
        if job is not None and needs_wake_up and job.id not in woken:
            send_wake_up(ctx.queues, job, ctx.clock.now())
            woken.add(job.id)
        counts["redriven" if needs_wake_up else "dropped"] += 1
    if wake_ups:
        ctx.queues.delete_dead(queue, list(wake_ups))
    return counts


def _wake_up(letter: DeadLetter) -> WakeUp | None:
    """Parse a wake-up. None for a message that was dead-lettered with a reason."""
    try:
        return WakeUp.from_json(letter.body) if letter.reason is None else None
    except InvalidMessage:
        return None
