"""Where no key of OpenAI is stored: types with a fallback answer by it, all other jobs wait until there is a key.

A gate asks before the claim, so that waiting uses nothing up, however long it lasts. An attempt that meets it all the same, because the key
was taken away a moment ago, is given back. A fallback answers only for a key that is not there, never for an OpenAI that fails.
"""

from __future__ import annotations

import json

from chalicelib.domain.admission import OPENAI_NOT_CONFIGURED, WaitUntil
from chalicelib.domain.errors import AttemptFailed, JobTypeNotFound, NotConfigured
from chalicelib.domain.job import Job, Ms, Usage
from chalicelib.ports import Ended
from chalicelib.usecases.attempt import Attempt
from chalicelib.usecases.circuits import spread
from chalicelib.usecases.engine import Engine
from chalicelib.usecases.facts import note_no_key

LOOK_AGAIN_MS = 300_000  # how soon a job that waits for a key looks again
KEPT_MS = 15_000  # how long an environment believes what it saw
LOCAL = "local"  # the model that results name where none was asked


async def key_gate(engine: Engine, job: Job) -> WaitUntil | None:
    """Until when a job that only OpenAI could answer has to wait; None: it need not.

    A type without instructions asks no model, and a type that is not known any more is told so by the claim.
    """
    try:
        kind = engine.job_type(job.type)
    except JobTypeNotFound:
        return None
    if not kind.instructions or kind.fallback is not None or await _has_key(engine):
        return None
    note_no_key(engine)
    return WaitUntil(_next_look(engine), OPENAI_NOT_CONFIGURED)


def note_unmade(engine: Engine, attempt: Attempt, failure: AttemptFailed | None) -> None:
    """An attempt that met no key before anything was begun counts for nothing: its job is to be held back."""
    if isinstance(failure, NotConfigured) and not attempt.begun:
        engine.local_state.api_key_present, engine.local_state.key_read_at = False, engine.clock.now()
        note_no_key(engine)
        attempt.held_until, attempt.held_why = _next_look(engine), OPENAI_NOT_CONFIGURED


def answer_locally(engine: Engine, attempt: Attempt) -> Ended | None:
    """The type's own answer, as if it had been streamed; None where it has none, or where the caller asked for a form of their own."""
    kind, body, now = attempt.kind, attempt.body, engine.clock.now()
    if kind.fallback is None or attempt.begun or isinstance(body.config.response_format, dict):
        return None
    note_no_key(engine)
    answer = json.dumps(kind.fallback(body.input, body.options), ensure_ascii=False)
    attempt.local = True
    attempt.start_stage(kind.stages[1], now)
    attempt.append(answer, now)
    return Ended(Usage(), LOCAL)


async def _has_key(engine: Engine) -> bool:
    board, now = engine.local_state, engine.clock.now()
    if board.key_read_at is None or not 0 <= now - board.key_read_at < KEPT_MS:
        has_key = await engine.provider.is_configured()
        board.api_key_present, board.key_read_at = has_key, engine.clock.now()
    return board.api_key_present


def _next_look(engine: Engine) -> Ms:
    return spread(engine, engine.clock.now() + LOOK_AGAIN_MS)
