"""The limits of a kind of work as its jobs meet them: asked before the claim, kept while a job runs, given back at its end.

Only types that have limits come here; all others pay nothing. In doubt a job waits for some seconds: a limit is there to protect something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from chalicelib.domain import turnstile as rules
from chalicelib.domain.admission import TYPE_CONCURRENCY, TYPE_RATE, TYPE_UNKNOWN, RunNow, WaitUntil
from chalicelib.domain.errors import StaleVersion, Throttled, Unavailable
from chalicelib.domain.job import Job, Status
from chalicelib.domain.job_type import JobType, Limits
from chalicelib.domain.turnstile import Turn, Turnstile
from chalicelib.usecases.attempt import Attempt
from chalicelib.usecases.circuits import spread
from chalicelib.usecases.engine import Engine

ROUNDS = 40  # each lost round means that somebody else has moved the turnstile on
LONGEST_PAUSE = 0.1  # seconds between two rounds, by chance, so that those who come together do not stay together
PATIENCE_SECONDS = 5.0
RENEW_SECONDS = 10.0  # a third of a slot's time
IN_DOUBT_MS = 5_000

T = TypeVar("T")


def limits_of(kind: JobType) -> Limits | None:
    """None: there are none, and nobody has to ask."""
    return None if kind.limits is None or kind.limits.is_unlimited else kind.limits


async def take_turn(engine: Engine, kind: JobType, job: Job) -> RunNow | WaitUntil:
    """Come in, or wait for the time that it is told; without a call where the type has no limits, else with one write.

    Whoever comes at its time has its place, and only needs a slot. The mark is that of a wake-up, not of a worker: of two workers with the
    same one neither may keep the other out.
    """
    limits = limits_of(kind)
    if limits is None:
        return RunNow(job.asked_model)
    now, mark = engine.clock.now(), f"{job.id}#{job.generation}"
    told = job.resume_at if job.status is Status.HELD and job.reason in (TYPE_RATE, TYPE_CONCURRENCY) else None
    if told is not None and told > now + rules.EARLY_MS:
        return WaitUntil(told, job.reason or TYPE_RATE)  # its wake-up came too early: its place is not used up
    in_time = told is not None and told >= now - rules.PLACE_KEPT_MS
    latest = job.expires_at if job.started_at is None else job.retry_until or None

    def ask(seen: Turnstile) -> Turn:
        return rules.ask(seen, limits, mark, engine.clock.now(), has_place=in_time, latest=latest)

    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            turn = await _swap(engine, kind.name, ask, lambda turn: turn.limiter)
    except (Unavailable, TimeoutError) as exc:
        engine.log("a limit could not be asked", job_id=job.id, tenant=job.tenant, type=kind.name, error=exc)
        return WaitUntil(spread(engine, now + IN_DOUBT_MS), TYPE_UNKNOWN)
    if turn.until is not None:
        return WaitUntil(turn.until, TYPE_RATE if turn.by_rate else TYPE_CONCURRENCY)
    return RunNow(job.asked_model, permit=mark if limits.concurrency is not None else None)


async def keep_turn(engine: Engine, attempt: Attempt) -> None:
    """Renew the slot for as long as the attempt runs. What fails is tried again; a slot that is lost for a while costs only order."""
    if attempt.turn is None:
        return
    mark = attempt.turn
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            await _swap(engine, attempt.kind.name, lambda seen: rules.renew(seen, mark, engine.clock.now()), _itself)
        except Unavailable as exc:
            engine.log("a slot was not renewed", job_id=attempt.job.id, tenant=attempt.job.tenant, error=exc)


async def give_turn_back(engine: Engine, job_type: str, mark: str | None, *, ran: bool = True) -> None:
    """Let another one in. If that fails the slot comes back by its time."""
    if mark is None:
        return
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await _swap(engine, job_type, lambda seen: rules.leave(seen, mark, engine.clock.now(), ran=ran), _itself)
    except (Unavailable, TimeoutError) as exc:
        engine.log("a slot was not given back", type=job_type, mark=mark, error=exc)


async def _swap(engine: Engine, job_type: str, decide: Callable[[Turnstile], T], then: Callable[[T], Turnstile]) -> T:
    """Decide on the turnstile as it was seen last, and have it so; afresh where it has moved on. What was decided."""
    board = engine.local_state.type_limiters
    seen = board.get(job_type) or await _read(engine, job_type)
    for _ in range(ROUNDS):
        decided = decide(seen)
        new = then(decided)
        if new is seen:
            return decided
        try:
            await engine.offload(engine.type_limiters.replace, seen, new, engine.clock.now())
        except StaleVersion as stale:
            seen = board[job_type] = stale.current or Turnstile(type=job_type)
            await asyncio.sleep(engine.random() * LONGEST_PAUSE)
        except Unavailable:  # perhaps it had its effect: what is there tells
            seen = await _read(engine, job_type)
        else:
            board[job_type] = new
            return decided
    raise Throttled


async def _read(engine: Engine, job_type: str) -> Turnstile:
    return await engine.offload(engine.type_limiters.get, job_type) or Turnstile(type=job_type)


def _itself(turnstile: Turnstile) -> Turnstile:
    return turnstile
