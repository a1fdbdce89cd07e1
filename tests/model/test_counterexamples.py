"""Counterexamples of the model, run on the domain's transitions.

Each test takes the model's shortest counterexample without one rule, and repeats its steps on the
real code: the last step is refused, or has no effect.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import pytest

from chalicelib import job_types
from chalicelib.adapters.memory.job_data import MemoryChunks
from chalicelib.adapters.memory.leases import MemoryLeases
from chalicelib.domain.errors import ChunkConflict, StaleVersion
from chalicelib.domain.execution.transcript import Chunk, join_chunks
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.jobs.spec import JobConfig, JobSpec
from chalicelib.domain.jobs.transitions import (
    AttemptOutcome,
    cancel,
    claim,
    finish,
    owns,
    postpone_check,
    reclaim,
    restart,
    retry_later,
    store_response_id,
)
from chalicelib.domain.limits.admission import RunNow
from chalicelib.ports import Lease
from chalicelib.services.worker.attempt import Attempt
from tests.kit.jobs import ERROR, HOUR, NOW, job
from tests.model.protocol import CORE_RULES, Resend, Resume, core
from tests.model.search import explore

A, B = "lease-a#1", "lease-b#1"
DONE = AttemptOutcome(status=Status.COMPLETED, length=2, usage=Usage(input=1, output=2), cost=10)
FAILED = AttemptOutcome(status=Status.FAILED, length=1, cost=5, error=ERROR)


@cache
def without(rule: str) -> tuple[str, ...]:
    """Return the shortest trace to a violation without `rule`."""
    report = explore(core(**CORE_RULES[rule][1]), frozenset(CORE_RULES) - {rule})  # type: ignore[arg-type]
    assert report.violation
    return report.trace


def allowed(new: Job | None) -> Job:
    """Assert that a transition was allowed."""
    assert new is not None
    return new


def claimed(seen: Job, owner: str = A) -> Job:
    return allowed(claim(seen, seen.generation, owner, NOW))


def requeued(seen: Job, length: int = 0) -> Job:
    """Return the job after its owner has stalled and the sweeper has requeued it."""
    return allowed(reclaim(seen, transitions.lease_of(seen), length, None, NOW))


def test_fence_stops_the_writes_of_a_stale_worker() -> None:
    """Without rule `fence`, a stalled worker completes its successor's attempt."""
    assert without("fence")[-2:] == ("a worker claims generation 2: attempt 2", "worker g1a1 writes completed")

    first = claimed(job())
    second = claimed(requeued(first), B)

    assert finish(second, first.generation, A, DONE, NOW) is None
    assert retry_later(second, first.generation, A, FAILED, NOW + 1, NOW) is None


def test_claim_takes_a_new_attempt_number() -> None:
    """Without rule `attempt`, the successor's text has the number of the stalled worker's."""
    assert "a worker claims generation 2: attempt 1" in without("attempt")

    first = claimed(job())

    assert claimed(requeued(first), B).attempt == first.attempt + 1


def test_retry_is_recorded_before_the_next_attempt() -> None:
    """Without rule `record`, a worker retries in place and the attempt is never recorded."""
    assert any("retries in place" in step for step in without("record"))

    first = claimed(job())
    released = allowed(retry_later(first, first.generation, A, FAILED, NOW + 1, NOW))

    assert finish(released, first.generation, A, DONE, NOW) is None
    assert claimed(released, A).attempt == first.attempt + 1


def test_manual_retry_does_not_reuse_attempt_numbers() -> None:
    """Without rule `reuse`, a manual retry begins at attempt 1 again."""
    assert without("reuse")[3:5] == ("the user retries", "a worker claims generation 2: attempt 1")

    failed = allowed(finish(claimed(job()), 1, A, FAILED, NOW))
    again = allowed(restart(failed, NOW, HOUR, HOUR))

    assert (claimed(again).attempt, again.generation, again.run) == (2, 2, 2)


def test_owner_nonce_differs_for_each_claim() -> None:
    """Without rule `nonce`, a doubled message in one batch takes the first claim for its own."""
    assert any("the owner is me" in step for step in without("nonce"))

    first = claimed(job(), "lease-a#1")

    assert claim(first, 1, "lease-a#2", NOW) is None
    assert not owns(first, 1, "lease-a#2")
    assert claim(first, 1, "lease-a#1", NOW) is first  # its own claim, whose response was lost


def test_readers_stop_at_the_recorded_length() -> None:
    """Without rule `clip`, a stalled worker's chunk extends the text of an ended job."""
    assert without("clip")[-2:] == ("the user cancels a queued job: cancelled at once", "worker g1a1 logs 0:1 of response 1")

    ended = allowed(cancel(requeued(claimed(job()), length=1), NOW))
    log = [Chunk(job_id="job_01", attempt=1, start=at, text=text, at=NOW) for at, text in enumerate("ab")]

    assert (ended.status, ended.length) == (Status.CANCELLED, 1)
    assert join_chunks(log, 0, ended.length) == "a"


def test_cancelling_a_running_job_only_sets_a_flag() -> None:
    """Without rule `flag`, the worker can keep neither its text nor its cost."""
    assert "the user cancels a processing job: cancelled at once" in without("flag")

    running = claimed(job())
    asked = allowed(cancel(running, NOW))

    assert (asked.status, asked.cancel_requested) == (Status.PROCESSING, True)
    by_owner = allowed(finish(asked, 1, A, DONE, NOW))
    assert (by_owner.status, by_owner.length, by_owner.cost) == (Status.CANCELLED, 2, 10)
    assert requeued(asked, length=1).status is Status.CANCELLED
    assert allowed(retry_later(asked, 1, A, FAILED, NOW + 1, NOW)).status is Status.CANCELLED


def test_manual_retry_clears_the_cancel_flag() -> None:
    """Without rule `clear`, the next run inherits the cancel request."""
    assert any("retries" in step for step in without("clear"))

    ended = allowed(finish(allowed(cancel(claimed(job()), NOW)), 1, A, DONE, NOW))
    again = claimed(allowed(restart(ended, NOW, HOUR, HOUR)), B)

    assert not again.cancel_requested
    assert allowed(finish(again, again.generation, B, DONE, NOW)).status is Status.COMPLETED


def test_sweeper_takes_a_job_only_if_its_lease_is_unchanged() -> None:
    """Without rule `sweepcond`, it takes the job of a living worker that renewed its lease."""
    assert any("reads an expired lease" in step for step in without("sweepcond"))

    leases = MemoryLeases()
    seen = Lease(id="lease-a", lane="normal", started_at=NOW, expires_at=NOW)
    leases.open(seen)
    leases.renew(replace(seen, expires_at=NOW + 25_000))
    assert not leases.fence(seen)

    running = claimed(job())
    assert reclaim(claimed(requeued(running), B), "lease-a", 0, None, NOW) is None
    assert reclaim(allowed(finish(running, 1, A, DONE, NOW)), "lease-a", 0, None, NOW) is None


def test_lease_renewal_fails_after_fencing() -> None:
    """Rule `sweepcond` as the worker meets it."""
    leases = MemoryLeases()
    seen = Lease(id="lease-a", lane="normal", started_at=NOW, expires_at=NOW)
    leases.open(seen)
    assert leases.fence(seen)

    with pytest.raises(StaleVersion):
        leases.renew(replace(seen, expires_at=NOW + 25_000))


def test_live_job_is_not_failed_by_a_dead_letter() -> None:
    """Without rule `dlq`, a dead letter fails a job that is alive."""
    assert any("dead-letter" in step for step in without("dlq"))

    for alive in (job(), claimed(job())):
        changes = (
            transitions.give_up(alive, NOW + HOUR),
            postpone_check(alive, NOW),
            cancel(alive, NOW),
            reclaim(alive, "lease-b", 0, None, NOW),
        )
        assert all(change is None or change.status is not Status.FAILED for change in changes)
    assert requeued(claimed(job())).status is Status.QUEUED


def test_resent_wake_up_keeps_the_generation() -> None:
    """Otherwise every wake-up under way in a deep queue would be stale for ever."""
    report = explore(Resend(), frozenset())
    assert report.violation.startswith("STUCK")

    waiting = job()
    for minute in range(1, 10):
        waiting = allowed(postpone_check(waiting, NOW + minute * 60_000))

    assert waiting.generation == job().generation
    assert claimed(waiting).status is Status.PROCESSING


def test_successor_continues_only_a_stored_response_id() -> None:
    """Without rule `save`, it continues a response that a stalled worker has logged."""
    trace = without("save")
    assert "worker g1a1 logs 0:1 of response 1" in trace
    assert "a worker claims generation 3: attempt 2" in trace

    stalled = claimed(job())
    second = claimed(requeued(stalled), B)

    assert store_response_id(second, 1, A, "response-1", NOW) is None
    third = claimed(requeued(allowed(store_response_id(second, 2, B, "response-2", NOW))), "lease-c#1")
    assert (third.attempt, third.response_id) == (2, "response-2")
    assert claimed(requeued(second), "lease-c#1").attempt == 3  # no response id was stored, so a new attempt starts


def test_append_never_replaces_a_longer_chunk() -> None:
    """Without rule `append`, a stalled worker's shorter chunk cuts the log short."""
    assert "worker g1a1 logs 0:1 of response 1" in without("append")

    chunks = MemoryChunks()
    log = partial(Chunk, job_id="job_01", attempt=1, at=NOW)
    chunks.append(log(start=0, text="ab"))
    chunks.append(log(start=0, text="a"))
    chunks.append(log(start=2, text="c"))

    assert join_chunks(chunks.read("job_01", 1), 0) == "abc"
    with pytest.raises(ChunkConflict):
        chunks.append(log(start=1, text="x"))


def test_resume_cursor_names_an_event_that_is_wholly_in_the_log() -> None:
    """Otherwise the rest of a partly logged event is missing after a resumption."""
    report = explore(Resume(), frozenset())
    assert report.violation == "a token is missing from the log"

    running = allowed(store_response_id(claimed(job()), 1, A, "response-1", NOW))
    spec = JobSpec(prompt="p", config=JobConfig(model="m", max_tokens=100, durable=True))
    output = Attempt(running, spec, job_types.get("general"), A, NOW, RunNow("m")).output
    for sequence, delta in ((4, "ab"), (5, "c\ud83d"), (6, "\ude00d")):
        output.append(delta, NOW, sequence)

    assert output.transcript.text == "abc😀d"
    assert output.resume_cursor(1) == (None, None)
    assert output.resume_cursor(2) == output.resume_cursor(4) == (4, 2)
    assert output.resume_cursor(5) == (6, 5)
