"""Read and update the models' circuit breakers.

If their store does not answer, jobs run (protocol: if in doubt the circuit is closed).

An environment reads them at most every 1.5 seconds: when an invocation starts, and when an attempt
ends, because otherwise it would count its own failures as consecutive although other workers had
successes between them. It writes them after a failure, and after a success while a circuit is not
healthy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from chalicelib.domain.failures import AttemptFailed
from chalicelib.domain.jobs.spec import is_flex
from chalicelib.domain.limits import circuit_breaker as circuit_rules
from chalicelib.domain.limits.admission import HoldReason, WaitUntil
from chalicelib.domain.limits.circuit_breaker import (
    COOL_DOWN_MS,
    CircuitBreaker,
    CircuitState,
    Origin,
    Permission,
    ProviderSignal,
    classify_error,
    origin_of,
    tenant_mark,
)
from chalicelib.domain.queues.causes import CauseKind, cause_of
from chalicelib.domain.units import Ms, rfc3339
from chalicelib.services.compare_and_swap import update_async
from chalicelib.services.log import Log
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext

# The pauses are read with the circuits, and a pause holds two seconds after it was set: with the
# time from the gate to the claim.
CACHE_TTL_MS = 1_500
STORE_TIMEOUT_SECONDS = 2.0  # with all retries: the end of an attempt waits for it
MAX_ATTEMPTS = 5  # each lost attempt means that another worker changed the circuit
JITTER_MS = 10_000  # jobs that wait for the same time are spread over this

Change = Callable[[CircuitBreaker], CircuitBreaker | None]


async def load_circuit_breakers(ctx: WorkerContext) -> dict[str, CircuitBreaker]:
    """Return the circuit breakers by model, at most 1.5 seconds old; empty if unavailable.

    The board of the pauses comes with them; if it is unavailable, the last one stays.
    """
    state, now = ctx.local_state, ctx.clock.now()
    if state.circuit_breakers_read_at is None or not 0 <= now - state.circuit_breakers_read_at < CACHE_TTL_MS:
        state.circuit_breakers_read_at = now  # concurrent calls use the earlier values instead of reading too
        try:
            async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
                circuits, board = await ctx.offload(ctx.circuit_breakers.all_with_board)
            state.circuit_breakers = {circuit.model: circuit for circuit in circuits}
            if board is not None:
                state.pause_board, state.pause_board_read_at = board, now
        except Exception as exc:  # noqa: BLE001 - no fault of the store may stop jobs
            ctx.log("circuit_breakers_unavailable", error=exc)
            state.circuit_breakers, state.circuit_breakers_read_at = {}, ctx.clock.now()
    return state.circuit_breakers


async def acquire_probe(ctx: WorkerContext, seen: CircuitBreaker, origin: Origin) -> Permission:
    """Try to become the probe of an open circuit.

    Args:
        origin: its mark identifies the attempt, as job id and generation.

    Returns: PROBE if it is the probe now; ALLOWED if the circuit was closed meanwhile or its store
        does not answer; DENIED otherwise.
    """
    now = ctx.clock.now()
    current = await _try_update(ctx, seen, lambda circuit: circuit_rules.start_probe(circuit, origin, now))
    if current is None:
        return Permission.ALLOWED
    if current.is_probe(origin.mark):
        return Permission.PROBE
    return Permission.ALLOWED if circuit_rules.check_permission(current, origin, now) is Permission.ALLOWED else Permission.DENIED


async def close_on_first_token(ctx: WorkerContext, attempt: Attempt) -> None:
    """Close the circuit at the first text of its probe, before the attempt ends."""
    if attempt.admission.probe is None:
        return
    await attempt.output.wait_until(lambda: attempt.output.first_token_at is not None or attempt.output.complete)
    if attempt.output.first_token_at is not None and not attempt.is_free:
        await _record_signal(ctx, attempt, ProviderSignal.SUCCESS, None)


async def record_outcome(ctx: WorkerContext, attempt: Attempt, failure: AttemptFailed | None, *, answered: bool) -> WaitUntil | None:
    """Record in the model's circuit breaker how the attempt ended.

    Args:
        answered: the provider's final event was read.

    Returns: how long the job waits, if, before a response was created, it was a probe that failed or
        the account was refused. Such an attempt has cost nothing and does not count. A job with
        fallback models does not wait.
    """
    if attempt.kind.handler is not None:  # a task asks no model
        return None
    code = failure.code if failure else None
    flex = is_flex(attempt.spec.config.openai)
    signal = classify_error(code, flex=flex) if code or answered else ProviderSignal.INCONCLUSIVE
    breaker = await _record_signal(ctx, attempt, signal, failure)
    failed, account = signal in (ProviderSignal.FAILURE, ProviderSignal.ACCOUNT_BLOCKED), signal is ProviderSignal.ACCOUNT_BLOCKED
    if (attempt.admission.probe is None and not account) or attempt.response_started or not failed:
        return None
    return _wait_for_circuit(ctx, attempt, breaker, account=account)


def _wait_for_circuit(ctx: WorkerContext, attempt: Attempt, breaker: CircuitBreaker | None, *, account: bool) -> WaitUntil | None:
    """Return that the job of a failed probe waits, or that of an attempt for which the account was refused."""
    now, tenant = ctx.clock.now(), tenant_mark(attempt.job.tenant)
    if attempt.job.fallback_models and (breaker is not None or not account):
        return WaitUntil(now, HoldReason.CIRCUIT_OPEN)
    is_closed = breaker is not None and breaker.state is CircuitState.CLOSED and breaker.own_of(tenant) is None
    if is_closed and not account:
        return None
    if breaker is None or is_closed:  # the circuit does not keep others from asking meanwhile
        return WaitUntil(add_jitter(ctx, now + COOL_DOWN_MS), HoldReason.CIRCUIT_OPEN)
    cause = cause_of(CauseKind.CIRCUIT, attempt.spec.config.model)
    return WaitUntil(circuit_rules.retry_at(breaker, tenant, now), HoldReason.CIRCUIT_OPEN, cause)


def add_jitter(ctx: WorkerContext, when: Ms) -> Ms:
    """Return a random time soon after `when`, so that waiting jobs do not all start at once."""
    return when + round(ctx.random() * JITTER_MS)


def log_state_change(log: Log, before: CircuitBreaker, after: CircuitBreaker) -> None:
    """Log that a circuit opened or closed, for all tenants or for one; operators have alarms on it."""
    fields = {"model": after.model, "trips": after.trips, "by": after.by}
    for own in after.own:
        known = before.own_of(own.tenant)
        if not own.probe and (known is None or known.opened_at != own.opened_at):
            shown = {"trips": own.trips, "reason": own.reason, "until": rfc3339(own.until)}
            log("tenant_circuit_opened", model=after.model, tenant_mark=own.tenant, **shown)
    for own in before.own:
        if after.own_of(own.tenant) is None:
            log("tenant_circuit_closed", model=after.model, tenant_mark=own.tenant, reason=own.reason)
    if after.state is CircuitState.OPEN and after.opened_at != before.opened_at:
        log("circuit_opened", **fields, reason=after.reason, until=rfc3339(after.until))
    elif after.state is CircuitState.CLOSED and before.state is not CircuitState.CLOSED:
        log("circuit_closed", **fields, reason=before.reason)


async def _record_signal(
    ctx: WorkerContext, attempt: Attempt, signal: ProviderSignal, failure: AttemptFailed | None
) -> CircuitBreaker | None:
    """Update the circuit breaker of the attempt's model.

    Returns: the circuit breaker as it is now; None if there was nothing to record or the store did
        not answer.
    """
    started_at, mark = attempt.started_at, attempt.admission.probe or attempt.owner
    origin = origin_of(mark, attempt.job.tenant, attempt.job.id)

    def change(circuit: CircuitBreaker) -> CircuitBreaker:
        now = ctx.clock.now()
        if signal is ProviderSignal.SUCCESS:
            changed = circuit_rules.record_success(circuit, started_at, mark, now)
        elif signal is not ProviderSignal.INCONCLUSIVE:
            changed = circuit_rules.record_failure(circuit, failure.code if failure else "", started_at, origin, now)
        else:
            changed = circuit_rules.release_probe(circuit, mark, now)
        return changed

    if signal is ProviderSignal.INCONCLUSIVE and attempt.admission.probe is None:
        return None
    model = attempt.spec.config.model
    seen = (await load_circuit_breakers(ctx)).get(model) or CircuitBreaker(model=model)
    return await _try_update(ctx, seen, change)


async def _try_update(ctx: WorkerContext, seen: CircuitBreaker, change: Change) -> CircuitBreaker | None:
    """Apply `change` by compare-and-swap.

    Returns: the circuit breaker as it is now, changed or not; None if the store did not answer in
        time.
    """
    try:
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            return await _update(ctx, seen, change)
    except Exception as exc:  # noqa: BLE001 - no fault of the store may delay the end of a job
        ctx.log("circuit_breaker_update_failed", model=seen.model, error=exc)
        return None


async def _update(ctx: WorkerContext, seen: CircuitBreaker, change: Change) -> CircuitBreaker:
    write = partial(ctx.offload, ctx.circuit_breakers.replace)
    before, after = await update_async(write, seen, change, missing=CircuitBreaker(model=seen.model), attempts=MAX_ATTEMPTS)
    ctx.local_state.circuit_breakers[seen.model] = after
    log_state_change(ctx.log, before, after)
    return after
