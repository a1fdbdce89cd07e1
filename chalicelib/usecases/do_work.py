"""Do work that is no OpenAI call: under the same claim, lease, cancel, time and retries, with a text that is the JSON of what it returns.

Work must be idempotent. It is done again from its beginning when its worker died, its time was over, or a store did not answer; so it
writes what may be written twice, such as an object under one name, and deletes what may be gone already.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from chalicelib.domain.body import Body
from chalicelib.domain.errors import AttemptFailed, HeadraceError, RequestRefused, StoreSilent, Unavailable
from chalicelib.domain.identity import Caller, Role
from chalicelib.domain.job import Job, Usage
from chalicelib.domain.job_type import NO_MODEL
from chalicelib.domain.text import whole
from chalicelib.domain.transcript import Chunk
from chalicelib.ports import Ended
from chalicelib.usecases.attempt import Attempt
from chalicelib.usecases.engine import Engine
from chalicelib.usecases.judge import LONGEST_MESSAGE
from chalicelib.usecases.keep_log import KEEP_TEXT_DAYS
from chalicelib.usecases.progress_of import progress_of
from chalicelib.usecases.tools import Tools

NOTE_SECONDS = 2.0  # how often the progress is kept where polls read it, if it has changed

T = TypeVar("T")


class Task:
    """What a type's `work` is handed: the job, what it asks for, and what may be done about it."""

    def __init__(self, engine: Engine, attempt: Attempt) -> None:
        self._engine, self._attempt = engine, attempt

    @property
    def job(self) -> Job:
        return self._attempt.job

    @property
    def body(self) -> Body:
        return self._attempt.body

    @property
    def context(self) -> Tools:
        return self._engine.task_context

    @property
    def caller(self) -> Caller:
        """Whoever submitted the job, with no more rights than they had then."""
        job, role = self.job, Role.named(self.body.role or Role.USER.label)
        return Caller(tenant=job.tenant, user=job.user, role=role, key_id=job.key_id, key_hash="")

    async def run_sync(self, call: Callable[..., T], *args: Any) -> T:
        """Make a call of a port or a use case, off the event loop. A cancel waits until it has returned: no thread outlives the work."""
        made = asyncio.ensure_future(self._engine.offload(call, *args))
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:
            await asyncio.wait({made})
            if not made.cancelled():
                made.exception()  # nobody asks for it any more
            raise

    async def run_sync_each(self, call: Callable[..., T], items: list[Any], together: int = 8) -> list[T]:
        """Make the call for each item, so many at a time. The first that fails is raised when those beside it have returned."""
        answers: list[T] = []
        for start in range(0, len(items), together):
            made = await asyncio.gather(*(self.run_sync(call, item) for item in items[start : start + together]), return_exceptions=True)
            for answer in made:
                if isinstance(answer, BaseException):
                    raise answer
                answers.append(answer)
        return answers

    def start_stage(self, stage: str) -> None:
        """Begin a stage of the type."""
        self._attempt.start_stage(stage, self._engine.clock.now())

    def report_progress(self, done: float, total: float) -> None:
        """Say how far it is: the percentage and the time that is left are made of it."""
        self._attempt.report_progress(done, total, self._engine.clock.now())

    def record_milestone(self, name: str, description: str) -> None:
        """Say that something was reached."""
        self._attempt.record_milestone(name, description, self._engine.clock.now())


async def do_work(engine: Engine, attempt: Attempt) -> Ended:
    """The end of the work, once what it returned is in the transcript.

    Raises:
        AttemptFailed: there will be none; `RequestRefused` where doing it again would not help.
    """
    work = attempt.kind.handler
    assert work is not None
    noting = asyncio.create_task(_note_progress(engine, attempt))
    try:
        output = await work(Task(engine, attempt))
    except AttemptFailed:
        raise
    except Unavailable as exc:
        raise StoreSilent from exc
    except HeadraceError as exc:
        raise RequestRefused(_told(exc)) from exc
    finally:
        noting.cancel()
        await asyncio.gather(noting, return_exceptions=True)
    attempt.put_output(whole(json.dumps(output, ensure_ascii=False)))
    return Ended(Usage(), NO_MODEL)


def _told(problem: HeadraceError) -> str:
    """The first places of what is wrong, as many as are kept whole of a message; the message where no place is named."""
    places = [f"{detail.path} {detail.message}.".strip() for detail in problem.details]
    told = places[0] if places else problem.message
    for number, place in enumerate(places[1:], start=1):
        more = f" And {len(places) - number} more."
        if len(told) + 1 + len(place) + len(more) > LONGEST_MESSAGE:
            return told + more
        told = f"{told} {place}"
    return told


async def _note_progress(engine: Engine, attempt: Attempt) -> None:
    """Keep the progress for those who poll, as a chunk without text: its text comes in one piece at the end."""
    known: dict[str, Any] = {}
    while True:
        await asyncio.sleep(NOTE_SECONDS)
        shown = attempt.tracker.snapshot()
        if shown == known:
            continue
        now, known = engine.clock.now(), shown
        chunk = Chunk(job_id=attempt.job.id, attempt=attempt.number, start=0, text="", at=now, progress=progress_of(attempt, now))
        try:
            await engine.offload(engine.chunks.put_progress, replace(chunk, ttl=now // 1000 + KEEP_TEXT_DAYS * 86_400))
        except Unavailable as exc:  # the next one is as good
            engine.log("a progress was not kept", job_id=attempt.job.id, tenant=attempt.job.tenant, error=exc)
