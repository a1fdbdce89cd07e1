"""The circuits as a worker sees and changes them. A store that does not answer never hurts a job: in doubt everything is let through.

Read at most every two seconds for each environment, once where an invocation begins and once where an attempt ends: who did not look
again would go on counting failures between which others had answers. Written only on failures and on the way back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from chalicelib.domain.failures import AttemptFailed
from chalicelib.domain.limits import circuit_breaker as circuit_rules
from chalicelib.domain.limits.admission import HoldReason, WaitUntil
from chalicelib.domain.limits.circuit_breaker import COOL_DOWN_MS, CircuitBreaker, CircuitState, Permission, ProviderSignal, classify_error
from chalicelib.domain.units import Ms, rfc3339
from chalicelib.services.compare_and_swap import update_async
from chalicelib.services.log import Log
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext

CACHE_TTL_MS = 2_000
STORE_TIMEOUT_SECONDS = 2.0  # for the store, all in all: the end of an attempt waits for it
MAX_ATTEMPTS = 5  # each lost round means that somebody else has moved the circuit on
JITTER_MS = 10_000  # jobs that wait for the same moment come back within so long

Change = Callable[[CircuitBreaker], CircuitBreaker | None]


async def load_circuit_breakers(ctx: WorkerContext) -> dict[str, CircuitBreaker]:
    """The circuits by model, at most two seconds old; none, if they cannot be read."""
    board, now = ctx.local_state, ctx.clock.now()
    if board.read_at is None or not 0 <= now - board.read_at < CACHE_TTL_MS:
        board.read_at = now  # whoever asks meanwhile makes do with what there is
        try:
            async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
                circuits = await ctx.offload(ctx.circuit_breakers.all)
            board.circuits = {circuit.model: circuit for circuit in circuits}
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with the board, jobs run
            ctx.log("circuit_breakers_unavailable", error=exc)
            board.circuits, board.read_at = {}, ctx.clock.now()
    return board.circuits


async def acquire_probe(ctx: WorkerContext, seen: CircuitBreaker, mark: str) -> Permission:
    """Try to be the one attempt that tries an open circuit out. If nobody can say who is it, whoever comes is let through."""
    now = ctx.clock.now()
    there = await _change(ctx, seen, lambda circuit: circuit_rules.start_probe(circuit, mark, now))
    if there is None:
        return Permission.ALLOWED
    if there.is_probe(mark):
        return Permission.PROBE
    return Permission.ALLOWED if circuit_rules.check_permission(there, mark, now) is Permission.ALLOWED else Permission.DENIED


async def close_on_first_token(ctx: WorkerContext, attempt: Attempt) -> None:
    """Close the circuit with the first text of its probe, while that goes on."""
    if attempt.admission.probe is None:
        return
    await attempt.output.wait_until(lambda: attempt.output.first_token_at is not None or attempt.output.complete)
    if attempt.output.first_token_at is not None and not attempt.is_free:
        await _note(ctx, attempt, ProviderSignal.SUCCESS, None)


async def record_outcome(ctx: WorkerContext, attempt: Attempt, failure: AttemptFailed | None, *, answered: bool) -> WaitUntil | None:
    """Tell the model's circuit breaker how the attempt ended. `answered`: the provider's final event was read.

    Returns: how long the job waits, if the attempt was a probe that failed before a response was created: it has cost
        nothing and counts for nothing. If other models may stand in, the job asks for them at once.
    """
    if attempt.kind.handler is not None:  # no model was asked
        return None
    code = failure.code if failure else None
    signal = classify_error(code) if code or answered else ProviderSignal.INCONCLUSIVE
    breaker = await _note(ctx, attempt, signal, code)
    failed = signal in (ProviderSignal.FAILURE, ProviderSignal.ACCOUNT_BLOCKED)
    if attempt.admission.probe is None or attempt.response_started or not failed:
        return None
    now = ctx.clock.now()
    if attempt.job.fallback_models:
        return WaitUntil(now, HoldReason.CIRCUIT_OPEN)
    if breaker is not None and breaker.state is CircuitState.CLOSED:
        return None
    return WaitUntil(add_jitter(ctx, circuit_rules.retry_at(breaker, now) if breaker else now + COOL_DOWN_MS), HoldReason.CIRCUIT_OPEN)


def add_jitter(ctx: WorkerContext, when: Ms) -> Ms:
    """A moment soon after `when`, so that those who wait for it do not all come together."""
    return when + round(ctx.random() * JITTER_MS)


def log_state_change(log: Log, before: CircuitBreaker, after: CircuitBreaker) -> None:
    """The facts that operators are alerted by."""
    about = {"model": after.model, "trips": after.trips, "by": after.by}
    if after.state is CircuitState.OPEN and after.opened_at != before.opened_at:
        log("circuit_opened", **about, reason=after.reason, until=rfc3339(after.until))
    elif after.state is CircuitState.CLOSED and before.state is not CircuitState.CLOSED:
        log("circuit_closed", **about, reason=before.reason)


async def _note(ctx: WorkerContext, attempt: Attempt, sign: ProviderSignal, code: str | None) -> CircuitBreaker | None:
    began, mark = attempt.started_at, attempt.admission.probe or attempt.owner

    def change(circuit: CircuitBreaker) -> CircuitBreaker:
        now = ctx.clock.now()
        if sign is ProviderSignal.SUCCESS:
            return circuit_rules.record_success(circuit, began, mark, now)
        return (
            circuit_rules.record_failure(circuit, code or "", began, mark, now)
            if sign is not ProviderSignal.INCONCLUSIVE
            else circuit_rules.release_probe(circuit, mark, now)
        )

    if sign is ProviderSignal.INCONCLUSIVE and attempt.admission.probe is None:
        return None
    return await _change(ctx, await _seen(ctx, attempt.spec.config.model), change)


async def _seen(ctx: WorkerContext, model: str) -> CircuitBreaker:
    return (await load_circuit_breakers(ctx)).get(model) or CircuitBreaker(model=model)


async def _change(ctx: WorkerContext, seen: CircuitBreaker, change: Change) -> CircuitBreaker | None:
    """Swap, deciding afresh where it moved on. The circuit as it is then, changed or not; None: the store did not answer."""
    try:
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            return await _swap(ctx, seen, change)
    except Exception as exc:  # noqa: BLE001 - a circuit is worth less than the job whose end it would delay
        ctx.log("circuit_breaker_update_failed", model=seen.model, error=exc)
        return None


async def _swap(ctx: WorkerContext, seen: CircuitBreaker, change: Change) -> CircuitBreaker:
    replace = partial(ctx.offload, ctx.circuit_breakers.replace)
    before, after = await update_async(replace, seen, change, missing=CircuitBreaker(model=seen.model), attempts=MAX_ATTEMPTS)
    ctx.local_state.circuits[seen.model] = after
    log_state_change(ctx.log, before, after)
    return after
