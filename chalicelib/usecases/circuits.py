"""The circuits as a worker sees and changes them. A store that does not answer never hurts a job: in doubt everything is let through.

Read at most every two seconds for each environment, once where an invocation begins and once where an attempt ends: who did not look
again would go on counting failures between which others had answers. Written only on failures and on the way back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chalicelib.domain import circuit as rules
from chalicelib.domain.circuit import COOL_DOWN_MS, Circuit, Entry, Sign, State, sign_of
from chalicelib.domain.errors import AttemptFailed, StaleVersion, Throttled, Unavailable
from chalicelib.domain.job import Ms
from chalicelib.domain.units import rfc3339
from chalicelib.usecases.attempt import Attempt
from chalicelib.usecases.engine import Engine, Log

KEPT_MS = 2_000
PATIENCE_SECONDS = 2.0  # for the store, all in all: the end of an attempt waits for it
ROUNDS = 5  # each lost round means that somebody else has moved the circuit on
SPREAD_MS = 10_000  # jobs that wait for the same moment come back within so long

Change = Callable[[Circuit], Circuit | None]


async def look(engine: Engine) -> dict[str, Circuit]:
    """The circuits by model, at most two seconds old; none, if they cannot be read."""
    board, now = engine.local_state, engine.clock.now()
    if board.read_at is None or not 0 <= now - board.read_at < KEPT_MS:
        board.read_at = now  # whoever asks meanwhile makes do with what there is
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                circuits = await engine.offload(engine.circuit_breakers.all)
            board.circuits = {circuit.model: circuit for circuit in circuits}
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with the board, jobs run
            engine.log("the circuits could not be read", error=exc)
            board.circuits, board.read_at = {}, engine.clock.now()
    return board.circuits


async def take_probe(engine: Engine, seen: Circuit, mark: str) -> Entry:
    """Try to be the one attempt that tries an open circuit out. If nobody can say who is it, whoever comes is let through."""
    now = engine.clock.now()
    there = await _change(engine, seen, lambda circuit: rules.probe(circuit, mark, now))
    if there is None:
        return Entry.ALLOWED
    if there.is_probe(mark):
        return Entry.PROBE
    return Entry.ALLOWED if rules.admits(there, mark, now) is Entry.ALLOWED else Entry.DENIED


async def prove(engine: Engine, attempt: Attempt) -> None:
    """Close the circuit with the first text of its probe, while that goes on."""
    if attempt.probe is None:
        return
    await attempt.wait_until(lambda: attempt.first_token_at is not None or attempt.complete)
    if attempt.first_token_at is not None and not attempt.is_free:
        await _note(engine, attempt, Sign.SUCCESS, None)


async def note_end(engine: Engine, attempt: Attempt, failure: AttemptFailed | None, *, answered: bool) -> None:
    """What the end of an attempt says of its model. `answered`: the provider's final event was read.

    A probe that failed before a response was begun has cost nothing, so that its job is to be held back: `attempt.held_until`. If other
    models may stand in, it asks for them at once.
    """
    if attempt.kind.handler is not None:  # no model was asked
        return
    code = failure.code if failure else None
    sign = sign_of(code) if code or answered else Sign.INCONCLUSIVE
    circuit = await _note(engine, attempt, sign, code)
    if attempt.probe is None or attempt.begun or sign not in (Sign.FAILURE, Sign.ACCOUNT_BLOCKED):
        return
    now = engine.clock.now()
    if attempt.job.fallback_models:
        attempt.held_until = now
    elif circuit is None or circuit.state is not State.CLOSED:
        attempt.held_until = spread(engine, rules.look_again_at(circuit, now) if circuit else now + COOL_DOWN_MS)


def spread(engine: Engine, when: Ms) -> Ms:
    """A moment soon after `when`, so that those who wait for it do not all come together."""
    return when + round(engine.random() * SPREAD_MS)


def tell(log: Log, before: Circuit, after: Circuit) -> None:
    """The facts that operators are alerted by."""
    about = {"model": after.model, "trips": after.trips, "by": after.by}
    if after.state is State.OPEN and after.opened_at != before.opened_at:
        log("circuit opened", **about, reason=after.reason, until=rfc3339(after.until))
    elif after.state is State.CLOSED and before.state is not State.CLOSED:
        log("circuit closed", **about, reason=before.reason)


async def _note(engine: Engine, attempt: Attempt, sign: Sign, code: str | None) -> Circuit | None:
    began, mark = attempt.started_at, attempt.probe or attempt.owner

    def change(circuit: Circuit) -> Circuit:
        now = engine.clock.now()
        if sign is Sign.SUCCESS:
            return rules.answered(circuit, began, mark, now)
        return rules.failed(circuit, code or "", began, mark, now) if sign is not Sign.INCONCLUSIVE else rules.unproved(circuit, mark, now)

    if sign is Sign.INCONCLUSIVE and attempt.probe is None:
        return None
    return await _change(engine, await _seen(engine, attempt.body.config.model), change)


async def _seen(engine: Engine, model: str) -> Circuit:
    return (await look(engine)).get(model) or Circuit(model=model)


async def _change(engine: Engine, seen: Circuit, change: Change) -> Circuit | None:
    """Swap, deciding afresh where it moved on. The circuit as it is then, changed or not; None: the store did not answer."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await _swap(engine, seen, change)
    except Exception as exc:  # noqa: BLE001 - a circuit is worth less than the job whose end it would delay
        engine.log("a circuit could not be changed", model=seen.model, error=exc)
        return None


async def _swap(engine: Engine, seen: Circuit, change: Change) -> Circuit:
    new = change(seen)
    for _ in range(ROUNDS):
        if new is None or new is seen:
            engine.local_state.circuits[seen.model] = seen
            return seen
        try:
            await engine.offload(engine.circuit_breakers.replace, seen, new)
        except StaleVersion as stale:
            seen = stale.current or Circuit(model=seen.model)
            new = change(seen)
        except Unavailable:  # perhaps it had its effect: the same swap again finds out
            continue
        else:
            engine.local_state.circuits[new.model] = new
            tell(engine.log, seen, new)
            return new
    raise Throttled
