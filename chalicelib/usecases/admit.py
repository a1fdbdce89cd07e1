"""The gates before the claim, in order. A job that must wait is given back at once: nobody sleeps with it, and no attempt is used up."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace

from chalicelib.domain import transitions
from chalicelib.domain.admission import CIRCUIT_OPEN, Admission, RunNow, WaitUntil
from chalicelib.domain.circuit import Circuit, Entry, admits, look_again_at
from chalicelib.domain.errors import JobTypeNotFound, Unavailable
from chalicelib.domain.job import Job, Status
from chalicelib.domain.wakeup import WakeUp
from chalicelib.usecases.advance import advance
from chalicelib.usecases.circuits import look, spread, take_probe
from chalicelib.usecases.engine import Engine
from chalicelib.usecases.keys import key_gate
from chalicelib.usecases.patience import patiently
from chalicelib.usecases.turns import give_turn_back, take_turn


async def admit(engine: Engine, job: Job, one_by_one: asyncio.Lock) -> Admission:
    """Whether the job may run now, and with which model. Jobs of one batch ask for the limits of their type `one_by_one`: all at once they
    would only be in each other's way.

    An attempt that goes on with a response that OpenAI has begun is not asked, because nothing new is requested; nor is a job whose time
    is over, because its claim ends it.
    """
    if job.is_resumable or transitions.over(job, engine.clock.now()) is not None:
        return RunNow(job.asked_model)
    if (wait := await key_gate(engine, job)) is not None:
        return wait
    try:
        kind = engine.job_type(job.type)
    except JobTypeNotFound:  # the claim ends it
        return RunNow(job.asked_model)
    async with one_by_one if kind.limits is not None else nullcontext():
        turn = await take_turn(engine, kind, job)
    if isinstance(turn, WaitUntil) or kind.handler is not None:
        return turn
    admission = await _circuit_gate(engine, job)
    if isinstance(admission, RunNow):
        return replace(admission, permit=turn.permit)
    await give_turn_back(engine, kind.name, turn.permit, ran=False)
    return admission


async def give_back(engine: Engine, wake_up: WakeUp, job: Job, wait: WaitUntil) -> Job | None:
    """Write that it waits, then send the wake-up for its time [9]. The head as it is now, None if it is somebody else's by now.

    Raises:
        Unavailable: whether it was written is unknown; its message has to come again.
    """
    clock = engine.clock

    def change(seen: Job) -> Job | None:
        return transitions.hold(seen, wake_up.generation, wait.reason, wait.when, clock.now())

    held = await patiently(engine, advance, engine.jobs, job, change)
    delay = transitions.wake_delay(held, clock.now()) if held is not None and held.status is Status.HELD else None
    if held is None or delay is None:
        return held
    try:
        await engine.offload(engine.queues.send, held.lane, WakeUp(held.id, held.generation), held.tenant, delay)
    except Unavailable as exc:  # the record says when: the sweep sends it
        engine.log("a wake-up was not sent", job_id=held.id, tenant=held.tenant, error=exc)
    return held


async def _circuit_gate(engine: Engine, job: Job) -> Admission:
    """The job's own model if its circuit lets it through, if only as a probe; else the first of its others that does.

    The probe is a wake-up's, not a worker's: of two workers that have the same one neither may send the job away as the other claims it.
    """
    circuits, now, mark = await look(engine), engine.clock.now(), f"{job.id}#{job.generation}"
    shut = []
    for model in (job.model, *job.fallback_models):
        circuit = circuits.get(model) or Circuit(model=model)
        entry = admits(circuit, mark, now)
        if entry is Entry.PROBE:
            entry = await take_probe(engine, circuit, mark)
        if entry is not Entry.DENIED:
            return RunNow(model, probe=mark if entry is Entry.PROBE else None)
        shut.append(engine.local_state.circuits.get(model, circuit))
    return WaitUntil(spread(engine, min(look_again_at(circuit, now) for circuit in shut)), CIRCUIT_OPEN)
