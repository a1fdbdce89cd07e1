"""Tell the story of a job from its records: what it waited for, what was tried, what was decided, how it ended.

The sentences name models, limits and errors, and nothing of the prompt or the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chalicelib.domain.execution.result import WORKER_LOST, Result
from chalicelib.domain.explain.words import duration_text, time_text, waited_for
from chalicelib.domain.jobs.job import DEPENDENCIES, START_LATER, Job, JobPause, Status, Wait
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.jobs.transitions import HANDED_OVER, MAX_WAITS
from chalicelib.domain.limits.waiting import JobWait, WaitLimit
from chalicelib.domain.streaming.frames import incomplete_shape, limit_shape
from chalicelib.domain.units import Ms, rfc3339, seconds


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a job, or was decided about it.

    Attributes:
        at: when; None: not known, or it holds now.
        facts: what the sentence says, for programs.
    """

    at: Ms | None
    what: str  # submitted, earlier_waits, wait, pause, attempt, workers_lost, cancel_requested, now, or end
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What is stored about a job.

    Attributes:
        attempts: its attempt records, in order.
        limits: of its waits, by their place in `job.waits`: the limits as they are now.
        wait: what is known of its wait now.
        queue_position: about how many jobs are before it in its queue, itself included; None: it is not queued.
        content: False for who may not read error messages.
    """

    job: Job
    attempts: Sequence[Result] = ()
    limits: Mapping[int, WaitLimit] = field(default_factory=dict)
    wait: JobWait = field(default_factory=JobWait)
    queue_position: int | None = None
    content: bool = True


def tell_story(records: Records, now: Ms) -> list[Event]:
    """Return the events of a job, the oldest first; what holds now, or how it ended, is the last."""
    job = records.job
    first = [_submitted(job)]
    if len(job.waits) >= MAX_WAITS:
        first.append(Event(None, "earlier_waits", f"Of its waits the last {MAX_WAITS} are kept; there may have been more."))
    dated = [_wait(job, number, wait, records.limits.get(number), now) for number, wait in enumerate(job.waits)]
    dated += [_attempt(records, stored) for stored in records.attempts]
    dated.sort(key=lambda event: event.at or 0)
    last = []
    if job.crashes:
        last.append(Event(None, "workers_lost", f"{_workers(job.crashes)} died while running it.", {"crashes": job.crashes}))
    if job.pause is not None and not job.status.is_terminal and not job.pause.is_over(now):
        dated.append(_pause(job.pause, content=records.content))
        dated.sort(key=lambda event: event.at or 0)
    if job.cancel_requested and not job.status.is_terminal:
        last.append(Event(None, "cancel_requested", "A cancel was requested; it stops as soon as its worker sees that."))
    return [*first, *dated, *last, _end(records) if job.status.is_terminal else _now(records, now)]


def _submitted(job: Job) -> Event:
    model = None if job.model == NO_MODEL else job.model
    asks = f"for the model {model}" if model else "as a task that asks no model"
    sentence = f"{job.user} submitted it as a job of the type {job.type} in the lane {job.lane}, {asks}."
    if job.fallback_models:
        sentence += f" If that model cannot be asked, it may use {' or '.join(job.fallback_models)}."
    if job.batch_id is not None:
        sentence += f" It is a row of the batch {job.batch_id}."
    if job.run > 1:
        sentence += f" It was started again by hand since: this is run {job.run}."
    facts = {"user": job.user, "job_type": job.type, "priority": job.lane, "model": model, "fallback_models": list(job.fallback_models)}
    return Event(job.created_at, "submitted", sentence, {**facts, "batch_id": job.batch_id, "run": job.run})


def _wait(job: Job, number: int, wait: Wait, limit: WaitLimit | None, now: Ms) -> Event:
    """A wait. The last one of a held job goes on."""
    goes_on = wait.until is None and job.status is Status.HELD and number == len(job.waits) - 1
    until = wait.until if wait.until is not None else None if goes_on else job.finished_at or job.updated_at
    lasted = max(0, (until if until is not None else now) - wait.since)
    begins = "It has waited" if goes_on else "It waited"
    sentence = f"{begins} {duration_text(lasted)} for {waited_for(wait.reason, wait.cause, limit)}."
    facts = {"reason": wait.reason, "cause": wait.cause, "limit": limit_shape(limit), "until": rfc3339(until)}
    return Event(wait.since, "wait", sentence, {**facts, "seconds": seconds(lasted)})


def _pause(pause: JobPause, *, content: bool) -> Event:
    """The pause of the job itself that holds now."""
    end = f"until {time_text(pause.until)}" if pause.until is not None else "until it is resumed"
    because = f": {pause.reason}" if pause.reason and content else "."
    facts = {"by": pause.by, "until": rfc3339(pause.until), "reason": pause.reason if content else None}
    return Event(pause.since, "pause", f"{pause.by} paused it {end}{because}", facts)


def _attempt(records: Records, stored: Result) -> Event:
    job, model = records.job, None if stored.model == NO_MODEL else stored.model
    lasted = stored.finished_at - stored.started_at if stored.finished_at is not None and stored.started_at is not None else None
    after = f" after {duration_text(lasted)}" if lasted is not None else ""
    decision = _decision(job, stored)
    facts = {
        "attempt": stored.attempt,
        "model": model,
        "error_code": stored.error_code,
        "decision": decision,
        "seconds": seconds(lasted),
        "finished_at": rfc3339(stored.finished_at),
    }
    sentence = (
        f"Attempt {stored.attempt} {_asked(job, stored, model)}{_outcome(records, stored, after)} {_DECISIONS.get(decision or '', '')}"
    )
    return Event(stored.started_at or stored.finished_at, "attempt", sentence.strip(), facts)


def _asked(job: Job, stored: Result, model: str | None) -> str:
    if stored.fallback:
        return "was answered by the rules of the job type, because no OpenAI key was stored,"
    if stored.looked_up is not None and stored.looked_up.hit:
        return f"took the answer of {stored.looked_up.job_id} from the cache"
    if model is None:
        return "ran"
    return f"asked the fallback model {model}" if model != job.model else f"asked {model}"


def _outcome(records: Records, stored: Result, after: str) -> str:
    error = records.job.error
    if stored.finish_reason == WORKER_LOST:
        return f", and its worker died{after}."
    if stored.error_code is None:
        return f" and ended{after} as {stored.status}." if stored.status else f" and ended{after}."
    is_last = error is not None and error.attempt == stored.attempt and error.code == stored.error_code
    said = f": {error.message}" if is_last and error is not None and records.content and error.message else "."
    return f" and failed{after} with {stored.error_code}{said}"


# What was decided after an attempt.
_DECISIONS = {
    "tried_again": "It was tried again.",
    "retry": "It is tried again.",
    "wait": "It waits before it is tried again.",
    "not_retryable": "Another attempt would not help.",
    "no_attempt_left": "No attempt was left.",
    "too_late": "No further attempt may start any more.",
}


def _decision(job: Job, stored: Result) -> str | None:
    """What was decided after an attempt; None: nothing, because it ended the job or is the one that runs."""
    if stored.attempt < job.attempt:
        return "tried_again"
    if stored.error_code is None and stored.finish_reason != WORKER_LOST:
        return None
    if job.status is Status.FAILED and job.error is not None:
        if not job.error.retryable:
            return "not_retryable"
        return "no_attempt_left" if job.tries >= job.max_attempts else "too_late"
    by_status = {Status.RETRYING: "retry", Status.HELD: "wait", Status.QUEUED: "retry"}
    return by_status.get(job.status)


def _now(records: Records, now: Ms) -> Event:
    job, wait = records.job, records.wait
    sentences = [_state(records, now)]
    if wait.ahead is not None:
        sentences.append(_before(job, wait))
    if wait.start_at is not None:
        sentences.append(f"It probably starts at {time_text(wait.start_at)}, in {duration_text(wait.start_at - now)}.")
    elif job.status is Status.HELD:
        sentences.append("When it starts is not known.")
    facts = {
        "status": job.status.value,
        "reason": job.reason,
        "cause": job.cause,
        "limit": limit_shape(wait.limit),
        "jobs_before": wait.ahead,
        "more_before": wait.more_ahead,
        "estimated_start_at": rfc3339(wait.start_at),
    }
    return Event(None, "now", " ".join(sentences), facts)


def _state(records: Records, now: Ms) -> str:
    job = records.job
    if job.status is Status.HELD:
        return f"It is held: it waits for {waited_for(job.reason or 'held', job.cause, records.wait.limit)}."
    if job.status is Status.PROCESSING:
        asks = "" if job.is_task else f" asks {job.asked_model}"
        return f"It is running: attempt {job.attempt}{asks}."
    if job.status is Status.RETRYING:
        because = f", because the last attempt failed with {job.error.code}" if job.error is not None else ""
        return f"It waits for its next attempt{because}: {job.tries} of {job.max_attempts} are used."
    if job.status is Status.WAITING:
        return {DEPENDENCIES: "It waits for the jobs that it depends on to end.", START_LATER: "It waits for its start time."}.get(
            job.reason or "", "It waits."
        )
    if job.reason == HANDED_OVER:
        return "It is queued: its worker reached its time limit, and the next one goes on with the same answer."
    about = f", with about {records.queue_position:,} jobs in its queue" if records.queue_position else ""
    return f"It is queued in {job.queue} for {duration_text(now - job.queued_at)}{about}."


def _before(job: Job, wait: JobWait) -> str:
    if not wait.ahead:
        return f"No other job of {'its user' if job.line_by_user else job.tenant} is before it."
    count = f"More than {wait.ahead:,} jobs" if wait.more_ahead else "1 job" if wait.ahead == 1 else f"{wait.ahead:,} jobs"
    return f"{count} of {job.tenant} {'is' if wait.ahead == 1 and not wait.more_ahead else 'are'} before it."


def _end(records: Records) -> Event:
    job, at = records.job, records.job.finished_at
    lasted = f" {duration_text(at - job.created_at)} after it was submitted" if at is not None else ""
    facts = {"status": job.status.value, "error_code": job.error.code if job.error else None, "incomplete_reason": job.incomplete_reason}
    return Event(at, "end", f"It {_ended(job)}{lasted}.{_why(records)}", facts)


def _ended(job: Job) -> str:
    words = {Status.COMPLETED: "was completed", Status.INCOMPLETE: "ended incomplete", Status.CANCELLED: "was cancelled"}
    return words.get(job.status, job.status.value)


def _why(records: Records) -> str:
    job = records.job
    if job.status is Status.EXPIRED:
        return f" It had not started by {time_text(job.expires_at)}."
    if (incomplete := incomplete_shape(job)) is not None:
        return f" {incomplete['message']}"
    if job.error is None:
        return ""
    if not records.content:
        return f" The error is {job.error.code}."
    return f" {job.error.message} {job.error.suggestion}".rstrip()


def _workers(count: int) -> str:
    return "A worker" if count == 1 else f"{count:,} workers"
