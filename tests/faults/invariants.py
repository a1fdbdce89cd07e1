"""The invariants that must hold when a run has ended, whatever happened before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from chalicelib.domain.errors import ChunkConflict, ResultExpired
from chalicelib.domain.execution.transcript import join_chunks
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.jobs.transitions import is_stored
from chalicelib.domain.notifications.message import job_ended_message
from chalicelib.services.streaming.read_text import read_text
from tests.faults.simulation import QUEUES, Simulation
from tests.faults.steps import FREEZES, Kind


def violations(sim: Simulation) -> list[str]:
    """Return the invariants that an ended run has broken."""
    found = list(sim.history.problems)
    found += _check_leftovers(sim)
    for job in sim.real.jobs.records.values():
        name = f"{job.id[-3:]} ({job.status})"
        found += [f"{name}: {problem}" for problem in (*_check_ends(sim, job), *_check_text(sim, job), *_check_usage(sim, job))]
    found += _check_dependencies(sim)
    found += _check_notifications(sim)
    found += _check_subscribers(sim)
    found += _check_rates(sim)
    return found


def _check_leftovers(sim: Simulation) -> Iterator[str]:
    """Nothing is unfinished, and no message, stream, row or slot is left."""
    real, existing = sim.real, set(sim.real.jobs.records)
    if unfinished := sim.unfinished():
        yield f"unfinished: {unfinished}"
    if any(real.queues.messages[queue] for queue in QUEUES):
        yield "messages are left"
    if sim.provider.open:
        yield f"{sim.provider.open} streams of the provider are still open"
    stored_for = {key[0] for key in real.chunks.rows} | {key[0] for key in real.results._results}
    stored_for |= set(real.subscriptions._subscriptions) | set(real.subscriptions._controls)
    if stored_for - existing:
        yield f"rows are left of jobs that do not exist: {sorted(stored_for - existing)}"
    for response in sim.provider.background.values():
        is_stored = any(version.response_id == response.id for version in sim.history.versions[response.log.job_id])
        if is_stored and not (response.read or response.cancelled):
            yield f"{response.id} was abandoned: its end was not read, and it was not cancelled"
    if slots := +real.jobs.slots:
        yield f"slots are taken for ever: {dict(slots)}"
    if real.queues.dead_lettered:
        yield f"there are dead letters: {dict(real.queues.dead_lettered)}"


def _check_ends(sim: Simulation, job: Job) -> Iterator[str]:
    """A job ends once in each generation and in each run, and `completed` is final."""
    versions = sim.history.versions[job.id]
    ends = [after for before, after in zip([None, *versions[:-1]], versions, strict=True) if after.status.is_terminal]
    for what in ("generation", "run"):
        numbers = [getattr(end, what) for end in ends]
        if len(set(numbers)) < len(numbers):
            yield f"ended more than once in a {what}: {[(end.status.value, end.generation, end.run) for end in ends]}"
    if any(version.status is Status.COMPLETED for version in versions[:-1]):
        yield "changed after it had completed"
    if not is_stored(job, versions[-1]):
        yield "its record was changed without a compare-and-swap"


def _check_notifications(sim: Simulation) -> Iterator[str]:
    """Each end of a job with a webhook has one delivery, and nothing else has one."""
    ends = (version for versions in sim.history.versions.values() for version in versions if version.status.is_terminal)
    messages = {job_ended_message(end, None).id: f"{end.id[-3:]} run {end.run}" for end in ends if end.notifies}
    stored = Counter(delivery.message_id for delivery in sim.real.deliveries.rows.values())
    for message, end in messages.items():
        if stored[message] != 1:
            yield f"{end}: its end has {stored[message]} deliveries"
    if unknown := set(stored) - set(messages):
        yield f"there are deliveries of ends that never were: {unknown}"


def _check_text(sim: Simulation, job: Job) -> Iterator[str]:
    """The log of each attempt is one text without holes.

    The result is its beginning, with the length in the record.
    """
    real, attempts = sim.real, range(1, job.attempt + 1)
    with_log = {attempt for job_id, attempt, _ in real.chunks.rows if job_id == job.id}
    if not with_log <= set(attempts):
        yield f"there is a log of an attempt that was never claimed: {sorted(with_log)}"
    texts = {}
    for attempt in attempts:
        response = sim.history.response_of(job.id, attempt)
        sent = response.sent if response else ""
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
    response = sim.history.response_of(job.id, job.attempt)
    if job.status is Status.COMPLETED and (response is None or response.sent != log[:length]):
        yield "completed without the whole text of its response"
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
        yield f"a reader gets {read!r}, the log has {log[:length]!r}"


def _check_usage(sim: Simulation, job: Job) -> Iterator[str]:
    """Each claimed attempt has a record.

    Its usage is exact if the final event was stored, and otherwise marked as estimated.

    The cost of the job is the sum of these records. The exception is a worker that was taken for
    dead, resumed, and replaced the estimate by its own record.
    """
    real = sim.real
    rows = {row.attempt: real.results.get(job.id, row.attempt) or row for row in real.results.attempts(job.id)}
    if set(rows) != set(range(1, job.attempt + 1)):
        yield f"{job.attempt} attempts were claimed, there are records of {sorted(rows)}"
    for attempt, row in rows.items():
        response = sim.history.response_of(job.id, attempt)
        charged = Usage() if row.model == NO_MODEL else response.charged if response else None
        puts = sim.history.results.get((job.id, attempt), [])
        if row.usage is None and row.text:
            yield f"a{attempt}: the provider sent text, the attempt record has no usage"
        if row.usage is not None and not row.usage.estimated and row.usage != charged:
            yield f"a{attempt}: the attempt record has {row.usage}, the provider charged {charged}"
        exact = [put for put in puts if put.usage is not None and not put.usage.estimated]
        if exact and (row.usage is None or row.usage.estimated):
            yield f"a{attempt}: an estimate replaced the exact usage in the attempt record"
        free = (job.id, attempt) in sim.history.cache_hits or row.model == NO_MODEL
        if row.usage is not None and row.usage.output == 0 and row.text and not free:
            yield f"a{attempt}: there is text, the attempt record has no tokens"
    if job.status is Status.COMPLETED and (job.usage is None or job.usage.estimated):
        yield f"completed with {job.usage}"
    late = any(rows[attempt].error_code != "worker_lost" for attempt in sim.history.reclaimed_attempts(job.id) if attempt in rows)
    total = sum(row.cost or 0 for row in rows.values())
    if not late and (job.cost or 0) != total:
        yield f"the job record has the cost {job.cost}, its attempt records {total}"


def _check_dependencies(sim: Simulation) -> Iterator[str]:
    """Each child was released once, after its parents, or cancelled if one did not complete."""
    for child, dependency in sim.real.dependencies.records.items():
        if child not in sim.real.jobs.records:
            continue  # the API died before it created the job record
        name, released = child[-3:], sim.history.releases.get(child, [])
        parents = [sim.job(parent) for parent in dependency.parents.values()]
        failed = [parent for parent in parents if parent.status is not Status.COMPLETED]
        if len(released) > 1:
            yield f"{name} was released {len(released)} times"
        if released and not released[0] >= set(dependency.parents.values()):
            yield f"{name} was released before its parents had ended"
        if released and failed and not dependency.run_anyway:
            yield f"{name} was released though {failed[0].id[-3:]} is {failed[0].status}"
        error = sim.job(child).error
        if error is not None and error.code == "dependency_failed" and (not failed or dependency.run_anyway):
            yield f"{name} was cancelled though no parent had failed"


def _check_subscribers(sim: Simulation) -> Iterator[str]:
    """Each subscriber knows the end, and holds exactly the result."""
    for client in sim.clients.values():
        job, held = sim.job(client.job_id), client.assembly
        length = job.length or 0
        text = join_chunks(sim.real.chunks.read(job.id, job.attempt), 0, length) if job.attempt else ""
        if (held.status, held.attempt, held.text) != (job.status.value, job.attempt, text):
            yield f"a subscriber holds {held.status} a{held.attempt} {held.text!r}, the record {job.status} a{job.attempt} {text!r}"
        if any(status == Status.COMPLETED for status, _ in client.trimmed):
            yield "text of a completed job was trimmed"


def _check_rates(sim: Simulation) -> Iterator[str]:
    """No minute has more requests to the provider than the limit of the model.

    All requests of such a run ask the same model. A store that does not answer lets jobs start, and
    a frozen worker sends its request later than it was counted.
    """
    limits = [limit.configured_requests for limit in sim.real.rates.limits() if limit.configured_requests is not None]
    faults = [(step, sim.steps.faults[step.number]) for step in sim.steps.trace if step.number in sim.steps.faults]
    unanswered = any(step.name.startswith("rates.") and kind in (Kind.REFUSED, Kind.UNANSWERED) for step, kind in faults)
    if not limits or unanswered or any(kind in FREEZES for _, kind in faults):
        return
    sent = [step.at for step in sim.steps.trace if step.name == "provider.create"]
    for at in sent:
        if (number := sum(at <= one < at + 60 for one in sent)) > min(limits):
            yield f"{number} requests within a minute from {at:.2f} on, {min(limits)} are allowed"
