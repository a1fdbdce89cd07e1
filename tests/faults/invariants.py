"""What holds at rest, whatever happened before: the promise, as one list of what is wrong with a run."""

from __future__ import annotations

from collections.abc import Iterator

from chalicelib.domain.errors import ChunkConflict, ResultExpired
from chalicelib.domain.execution.transcript import join_chunks
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.limits.type_limiter import SLOT_TTL_MS
from chalicelib.services.streaming.read_text import read_text
from tests.faults.cloud import LANE, Cloud


def broken(cloud: Cloud) -> list[str]:
    """The rules that a run at rest has broken; empty if the promise held.

    The record's cost is the sum of its ledger unless a worker that was taken for dead woke and wrote its own row over the estimate.
    """
    found = list(cloud.history.problems)
    found += _at_rest(cloud)
    for job in cloud.real.jobs.heads.values():
        name = f"{job.id[-3:]} ({job.status})"
        found += [f"{name}: {problem}" for problem in (*_ended_once(cloud, job), *_text(cloud, job), *_money(cloud, job))]
    found += _families(cloud)
    found += _watched(cloud)
    return found


def _at_rest(cloud: Cloud) -> Iterator[str]:
    real, there = cloud.real, set(cloud.real.jobs.heads)
    if busy := cloud.at_work():
        yield f"not at rest: {busy}"
    if real.queues.messages[LANE]:
        yield "messages are left"
    if cloud.provider.open:
        yield f"{cloud.provider.open} streams of the provider are still open"
    ghosts = {key[0] for key in real.chunks.rows} | {key[0] for key in real.results._results}
    ghosts |= set(real.subscriptions._subscriptions) | set(real.subscriptions._controls)
    if ghosts - there:
        yield f"something is kept of jobs that do not exist: {sorted(ghosts - there)}"
    for response in cloud.provider.background.values():
        stored = any(head.response_id == response.id for head in cloud.history.heads[response.answer.job_id])
        if stored and not (response.read or response.cancelled):
            yield f"{response.id} was left to itself: nobody read its end or stopped it"
    for turnstile in real.type_limiters.rows.values():
        now = cloud.world.clock.now()
        if turnstile.slots_in_use(now + SLOT_TTL_MS) or (not cloud.steps.faults and turnstile.slots_in_use(now)):
            yield f"slots of {turnstile.type} are taken: {turnstile.slots}"
    if LANE in real.queues.aside:
        yield f"messages were set aside: {real.queues.aside[LANE]}"


def _ended_once(cloud: Cloud, job: Job) -> Iterator[str]:
    """One end for each generation, and for each run; `completed` for ever."""
    heads = cloud.history.heads[job.id]
    ends = [after for before, after in zip([None, *heads[:-1]], heads, strict=True) if after.status.is_terminal]
    for what in ("generation", "run"):
        numbers = [getattr(end, what) for end in ends]
        if len(set(numbers)) < len(numbers):
            yield f"ended more than once in a {what}: {[(end.status.value, end.generation, end.run) for end in ends]}"
    if any(head.status is Status.COMPLETED for head in heads[:-1]):
        yield "left completed"
    if heads[-1] != job:
        yield "its record changed by no swap"


def _text(cloud: Cloud, job: Job) -> Iterator[str]:
    """The log of each attempt is one text without holes; the result is its beginning, as long as the record says."""
    real, attempts = cloud.real, range(1, job.attempt + 1)
    kept = {attempt for job_id, attempt, _ in real.chunks.rows if job_id == job.id}
    if not kept <= set(attempts):
        yield f"there is a log of an attempt that was never taken: {sorted(kept)}"
    texts = {}
    for attempt in attempts:
        answer = cloud.history.answer_of(job.id, attempt)
        sent = answer.sent if answer else ""
        try:
            texts[attempt] = join_chunks(real.chunks.read(job.id, attempt), 0)
        except ChunkConflict as hole:
            yield f"a{attempt}: {hole}"
            continue
        if not sent.startswith(texts[attempt]):
            yield f"a{attempt}: the log has {texts[attempt]!r}, the provider sent {sent!r}"
    if job.attempt == 0:
        return
    length, log = job.length or 0, texts.get(job.attempt, "")
    if len(log) < length:
        yield f"the log has {len(log)} of {length} code points"
    answer = cloud.history.answer_of(job.id, job.attempt)
    if job.status is Status.COMPLETED and (answer is None or answer.sent != log[:length]):
        yield "completed without all of the answer"
    row = real.results.get(job.id, job.attempt)
    if row is None and length:
        yield "there is no result"
    elif row is not None and row.text[:length] != log[:length]:
        yield f"the result is {row.text!r}, the log {log[:length]!r} of {length}"
    try:
        read = read_text(real.chunks, real.results, job, 0).text
    except ResultExpired:
        read = None
    if read != log[:length]:
        yield f"a reader is given {read!r}, the log has {log[:length]!r}"


def _money(cloud: Cloud, job: Job) -> Iterator[str]:
    """A row for each attempt that was taken: exact where the final event was kept, marked where it is an estimate."""
    real = cloud.real
    rows = {row.attempt: real.results.get(job.id, row.attempt) or row for row in real.results.attempts(job.id)}
    if set(rows) != set(range(1, job.attempt + 1)):
        yield f"{job.attempt} attempts were taken, the ledger has {sorted(rows)}"
    for attempt, row in rows.items():
        answer = cloud.history.answer_of(job.id, attempt)
        charged = Usage() if row.model == NO_MODEL else answer.charged if answer else None
        puts = cloud.history.results.get((job.id, attempt), [])
        if row.usage is None and row.text:
            yield f"a{attempt}: the provider sent text, the ledger says nothing"
        if row.usage is not None and not row.usage.estimated and row.usage != charged:
            yield f"a{attempt}: the ledger says {row.usage}, the provider charged {charged}"
        exact = [put for put in puts if put.usage is not None and not put.usage.estimated]
        if exact and (row.usage is None or row.usage.estimated):
            yield f"a{attempt}: the ledger knew what was charged and has an estimate now"
        free = (job.id, attempt) in cloud.history.found or row.model == NO_MODEL
        if row.usage is not None and row.usage.output == 0 and row.text and not free:
            yield f"a{attempt}: text was kept, the ledger has no tokens"
    if job.status is Status.COMPLETED and (job.usage is None or job.usage.estimated):
        yield f"completed with {job.usage}"
    late = any(rows[attempt].error_code != "worker_lost" for attempt in cloud.history.taken_back(job.id) if attempt in rows)
    total = sum(row.cost or 0 for row in rows.values())
    if not late and (job.cost or 0) != total:
        yield f"the record says {job.cost}, its ledger {total}"


def _families(cloud: Cloud) -> Iterator[str]:
    """Each child was let go once, when all that it waited for had ended; or it was cancelled because one had not completed."""
    for child, family in cloud.real.dependencies.families.items():
        if child not in cloud.real.jobs.heads:
            continue  # whoever made it died before its head was there
        name, released = child[-3:], cloud.history.let_go.get(child, [])
        parents = [cloud.head(parent) for parent in family.parents.values()]
        failed = [parent for parent in parents if parent.status is not Status.COMPLETED]
        if len(released) > 1:
            yield f"{name} was let go {len(released)} times"
        if released and not released[0] >= set(family.parents.values()):
            yield f"{name} was let go before its parents had ended"
        if released and failed and not family.run_anyway:
            yield f"{name} was let go though {failed[0].id[-3:]} is {failed[0].status}"
        error = cloud.head(child).error
        if error is not None and error.code == "dependency_failed" and (not failed or family.run_anyway):
            yield f"{name} was cancelled for no reason"


def _watched(cloud: Cloud) -> Iterator[str]:
    """Whoever watches knows the end, and holds exactly the result."""
    for client in cloud.clients.values():
        job, held = cloud.head(client.job_id), client.assembly
        length = job.length or 0
        text = join_chunks(cloud.real.chunks.read(job.id, job.attempt), 0, length) if job.attempt else ""
        if (held.status, held.attempt, held.text) != (job.status.value, job.attempt, text):
            yield f"a watcher holds {held.status} a{held.attempt} {held.text!r}, the record {job.status} a{job.attempt} {text!r}"
        if any(status == Status.COMPLETED for status, _ in client.trimmed):
            yield "text of a completed answer was withdrawn"
