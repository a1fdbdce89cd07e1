"""Durable jobs: the response outlives its worker, and the next worker resumes it.

One attempt has one response, one text and one payment.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.failures import ProviderConnectionLost, ProviderUnavailable, StreamCut
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import MAX_ISOLATED_CRASHES
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.streaming.read_text import read_text
from chalicelib.services.worker.process_messages import PartialBatchFailure
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.world import World, kill

WORDS = [f"w{number} " for number in range(60)]
TEXT = "".join(WORDS)


def slow(**more: Any) -> Script:
    """A script that sends half a minute of text."""
    return Script(deltas=WORDS, every=0.5, **more)


def submitted(world: World, **config: Any) -> Job:
    job = world.submit(config={"durable": True, **config})
    world.watch(job)
    return job


def assert_one_text(world: World, job: Job, text: str = TEXT) -> None:
    """Check that one attempt with one response completed the job, and that its text is intact."""
    ended = world.job(job)
    assert (ended.status, ended.attempt, ended.tries, ended.length) == (Status.COMPLETED, 1, 1, len(text))
    assert len(world.provider.requests) == 1
    assert world.log_text(job) == text
    assert world.assembled().text == text
    assert not world.frames("c1", "reset", "retrying")
    assert not world.provider.running
    assert not world.provider.abandoned
    [row] = world.container.results.attempts(job.id)
    assert row.usage is not None
    assert not row.usage.estimated


def test_the_response_id_is_stored_before_the_first_token_frame() -> None:
    """No chunk is stored before it (protocol rule 6: the response id is stored first)."""
    world = World(slow())
    job = submitted(world)
    at_frames: list[str | None] = []
    at_chunks: list[str | None] = []
    post, append = world.container.sockets.post, world.container.chunks.append

    def check_and_post(endpoint: str, connection_id: str, data: bytes) -> None:
        if json.loads(data)["event"] == "tokens":
            at_frames.append(world.job(job).response_id)
        post(endpoint, connection_id, data)

    def check_and_append(*args: Any) -> None:
        at_chunks.append(world.job(job).response_id)
        append(*args)

    world.container.sockets.post = check_and_post  # type: ignore[method-assign]
    world.container.chunks.append = check_and_append  # type: ignore[method-assign]

    world.deliver()

    assert set(at_frames) == set(at_chunks) == {"resp_0"}
    assert world.provider.requests[0].background
    assert_one_text(world, job)


@pytest.mark.parametrize("breaks", [(1,), (7,), (20, 3, 10), (1, 1, 1)])
@pytest.mark.parametrize("lost", [ProviderConnectionLost, StreamCut])
def test_a_broken_stream_is_resumed_after_the_last_event(breaks: tuple[int, ...], lost: type[Exception]) -> None:
    """By the same worker and without a new attempt."""
    world = World(slow(breaks=breaks, lost=lost))
    job = submitted(world)

    world.deliver()

    assert_one_text(world, job)
    assert len(world.provider.resumes) == len(breaks)
    assert not world.provider.fetches


@pytest.mark.parametrize("seconds", [1, 4.2, 9, 21, 29.9])
def test_a_successor_resumes_the_response_of_a_dead_worker(seconds: float) -> None:
    """Same attempt, no new request, and no text lost or doubled."""
    world = World(slow())
    job = submitted(world)
    kill(world, seconds)
    assert world.job(job).response_id == "resp_0"

    world.sweep(after=40)
    reclaimed = world.job(job)
    assert (reclaimed.status, reclaimed.attempt, reclaimed.crashes, reclaimed.length) == (Status.QUEUED, 1, 1, None)
    assert not world.container.results.attempts(job.id)
    world.deliver()

    assert_one_text(world, job)


def test_a_worker_hands_over_before_its_invocation_ends() -> None:
    """Four invocations of 12 seconds carry an answer of 30; subscribers notice nothing."""
    world = World(slow())
    job = submitted(world)

    for _ in range(4):
        world.deliver(seconds=12)

    assert_one_text(world, job)
    assert [fact for fact, _ in world.log_lines].count("attempt_handed_over") == 3
    assert world.job(job).crashes == 0


def test_text_read_between_two_workers_is_not_marked_done() -> None:
    """The text of an attempt that is handed over may still grow."""
    world = World(slow())
    job = submitted(world)
    world.deliver(seconds=12)

    part = read_text(world.container.chunks, world.container.results, world.job(job), 0)

    assert world.job(job).status is Status.QUEUED
    assert part.text == world.log_text(job)
    assert not part.done


def test_a_surrogate_pair_split_by_a_hand_over_stays_intact() -> None:
    deltas = ["a", "\ud83d", "\ude00", "b"]
    world = World(Script(deltas=deltas, every=4.0))
    job = submitted(world)

    world.deliver(seconds=12)  # hands over after 9.6 s
    assert world.log_text(job) == "a"
    world.deliver()

    assert_one_text(world, job, "a😀b")


def test_progress_does_not_decrease_at_a_hand_over() -> None:
    """The token count and the stages continue as well."""
    world = World(slow())
    job = submitted(world)

    for _ in range(4):
        world.deliver(seconds=12)

    percents = [frame["progress_percentage"] for frame in world.frames("c1", "tokens")]
    assert percents == sorted(percents)
    last = world.container.chunks.read(job.id, 1)[-1].progress
    assert last["tokens_received"] == len(WORDS)
    begun = [stage["started_at"] for stage in last["stages"] if stage["started_at"]]
    assert begun == sorted(begun)


def test_the_rest_of_a_response_is_fetched_if_its_stream_cannot_resume() -> None:
    """OpenAI refuses to resume streams that are older than five minutes."""
    world = World(slow(streams_for=5.0))
    job = submitted(world)
    kill(world, 10)
    world.sweep(after=40)

    world.deliver()

    assert_one_text(world, job)
    assert world.provider.fetches


def test_an_unfinished_response_is_polled_until_complete() -> None:
    """The intervals grow, and a fetch that fails is repeated."""
    world = World(slow(streams_for=1.0, breaks=(3,)))
    world.provider.errors["fetch"] = [ProviderUnavailable(), ProviderConnectionLost()]
    job = submitted(world)

    world.deliver()

    assert_one_text(world, job)
    assert 3 < len(world.provider.fetches) < 12


def test_a_worker_that_polls_for_a_response_hands_over_in_time() -> None:
    world = World(slow(streams_for=1.0, breaks=(3,)))
    job = submitted(world)

    for _ in range(4):
        world.deliver(seconds=12)

    assert_one_text(world, job)


def test_a_lost_response_is_replaced_by_a_new_attempt() -> None:
    """The first loss does not count against `max_attempts`."""
    world = World(slow(keeps_for=5.0), Script(deltas=["second"]))
    job = submitted(world, max_attempts=1)
    kill(world, 10)
    world.sweep(after=90)

    world.deliver()
    retrying = world.job(job)
    assert (retrying.status, retrying.reason, retrying.tries, retrying.response_id) == (Status.RETRYING, "response_lost", 0, None)
    world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.attempt, ended.tries) == (Status.COMPLETED, 2, 1)
    assert world.assembled().text == "second"
    assert [row.error_code for row in world.container.results.attempts(job.id)] == ["response_lost", None]


def test_repeatedly_lost_responses_fail_the_job_in_the_end() -> None:
    """From the second loss in a row on, each one counts against `max_attempts`."""
    world = World(slow(keeps_for=1.0))
    job = submitted(world, max_attempts=2)

    for _ in range(10):
        world.deliver(seconds=12)
        world.clock.advance(400)
        world.deliver()
        world.clock.advance(400)

    ended = world.job(job)
    assert ended.status is Status.FAILED
    assert ended.error is not None
    assert (ended.error.code, ended.attempt, ended.tries) == ("response_lost", 3, 2)


def test_a_resumed_stream_with_different_text_starts_a_new_attempt() -> None:
    """Replayed text is compared with the log; the differing response is stopped."""
    other = [word.upper() for word in WORDS]
    world = World(slow(replays=other), Script(deltas=["second"]))
    job = submitted(world)
    kill(world, 9)
    chunks = world.container.chunks.rows
    last = max(chunks)
    assert last[2] > 10
    chunks[last] = replace(chunks[last], sequence=5, sequence_offset=6)  # as if the chunk ended inside an event
    world.sweep(after=40)

    world.deliver()
    assert world.job(job).reason == "response_lost"
    world.deliver()

    assert world.assembled().text == "second"
    assert world.frames("c1", "reset")
    assert world.provider.cancels == ["resp_0"]


def test_replayed_text_that_is_already_logged_is_skipped() -> None:
    """A chunk may end inside an event, and the event is replayed whole."""
    world = World(slow())
    job = submitted(world)
    kill(world, 9)
    last = max(world.container.chunks.rows)
    world.container.chunks.rows[last] = replace(world.container.chunks.rows[last], sequence=5, sequence_offset=len(WORDS[0] + WORDS[1]))
    world.sweep(after=40)

    world.deliver()

    assert_one_text(world, job)


def test_a_response_whose_id_cannot_be_stored_is_stopped() -> None:
    """Otherwise it would run on and be charged, and no worker could find it."""
    world = World(slow())
    job = submitted(world)
    replaced = world.container.jobs.replace

    def refuse_response_id(seen: Job, new: Job) -> None:
        if new.response_id and not seen.response_id:
            raise KeyError("write failed")
        replaced(seen, new)

    world.container.jobs.replace = refuse_response_id  # type: ignore[method-assign]
    world.deliver()

    assert world.provider.cancels == ["resp_0"]
    assert not world.provider.running
    assert not world.frames("c1", "tokens")
    assert world.job(job).status is Status.RETRYING


def test_cancelling_a_durable_job_stops_its_response() -> None:
    """Closing the stream does not stop a background response."""
    world = World(slow())
    job = submitted(world)
    world.loop.call_later(6.0, lambda: cancel_job(world.container, world.job(job)))

    world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.length) == (Status.CANCELLED, len(world.log_text(job)))
    assert TEXT.startswith(world.assembled().text)
    assert world.provider.cancels == ["resp_0"]


def test_a_cancel_between_two_workers_is_executed_by_the_next_one() -> None:
    """It stops the response, keeps the text so far and sends no new request."""
    world = World(slow())
    job = submitted(world)
    world.deliver(seconds=12)

    asked = cancel_job(world.container, world.job(job))
    assert (asked.status, asked.cancel_requested) == (Status.QUEUED, True)
    world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.attempt, ended.length) == (Status.CANCELLED, 1, len(world.log_text(job)))
    assert world.provider.cancels == ["resp_0"]
    assert world.assembled().done


def test_the_sweeper_stops_the_response_of_a_job_that_it_ends() -> None:
    """The cancel was requested when the worker was already dead."""
    world = World(slow())
    job = submitted(world)
    kill(world, 6)
    cancel_job(world.container, world.job(job))

    world.sweep(after=40)

    assert world.job(job).status is Status.CANCELLED
    assert world.provider.cancels == ["resp_0"]


def test_the_response_is_stopped_when_a_crashing_job_fails() -> None:
    """The job fails after `MAX_ISOLATED_CRASHES` crashes while running alone."""
    world = World(Script(deltas=WORDS, every=60.0))
    job = submitted(world, timeout=86_400.0)
    for _ in range(MAX_ISOLATED_CRASHES):
        kill(world, 3)
        world.sweep(after=40)

    ended = world.job(job)
    assert ended.status is Status.FAILED
    assert ended.error is not None
    assert ended.error.code == "worker_lost"
    assert world.provider.cancels == ["resp_0"]


def test_a_timeout_spans_all_workers_of_a_durable_attempt() -> None:
    """A response that exceeds `config.timeout` is stopped."""
    world = World(slow())
    job = submitted(world, timeout=20.0, max_attempts=1)

    for _ in range(3):
        world.deliver(seconds=12)

    ended = world.job(job)
    assert ended.status is Status.FAILED
    assert ended.error is not None
    assert (ended.error.code, ended.attempt) == ("timeout", 1)
    assert world.provider.cancels == ["resp_0"]


def test_a_failed_response_is_retried_and_counts_as_a_try() -> None:
    world = World(slow(error=ProviderUnavailable()), Script(deltas=["second"]))
    job = submitted(world)

    world.deliver()
    failed = world.job(job)
    assert (failed.status, failed.reason, failed.tries) == (Status.RETRYING, "provider_unavailable", 1)
    world.clock.advance(400)
    world.deliver()

    assert world.job(job).status is Status.COMPLETED
    assert world.assembled().text == "second"


def test_a_non_durable_attempt_restarts_when_its_invocation_ends() -> None:
    """It cannot be handed over; the interrupted attempt does not count as a try."""
    world = World(slow(), Script(deltas=["second"]))
    job = world.submit(config={"max_attempts": 1})
    world.watch(job)

    world.deliver(seconds=12)
    interrupted = world.job(job)
    assert (interrupted.status, interrupted.reason, interrupted.tries) == (Status.RETRYING, "worker_ending", 0)
    world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.attempt) == (Status.COMPLETED, 2)
    assert world.assembled().text == "second"
    assert [row.error_code for row in world.container.results.attempts(job.id)] == ["worker_ending", None]


def test_a_short_stream_may_finish_near_the_end_of_an_invocation() -> None:
    world = World(Script(deltas=WORDS[:8], every=1.0))
    job = world.submit()

    world.deliver(seconds=12)

    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 1)


def test_a_worker_without_time_left_claims_no_job() -> None:
    """The wake-up is sent again unchanged, and no attempt is used up."""
    world = World()
    job = world.submit()

    world.deliver(seconds=0)

    assert world.job(job) == job
    world.deliver()
    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 1)


def test_a_stale_workers_result_does_not_replace_that_of_its_successor() -> None:
    """A worker that was taken for dead wakes up and writes the result of its part."""
    world = World(slow())
    job = submitted(world)
    world.deliver(seconds=12)
    world.deliver()
    whole = world.container.results.get(job.id, 1)
    assert whole is not None
    world.container.results.put(replace(whole, text="", status="failed", generation=1), "acme")

    assert world.container.results.get(job.id, 1) == whole


def test_a_hand_over_that_cannot_be_sent_is_completed_by_the_sweeper() -> None:
    world = World(slow())
    job = submitted(world)
    with refusing(world.container.queues, "send", 100), pytest.raises(Exception, match="come again"):
        world.deliver(seconds=12)

    world.sweep(after=130)
    world.deliver()

    assert_one_text(world, job)


def test_a_durable_job_that_loses_its_spec_fails_and_keeps_its_text() -> None:
    """Its response is stopped."""
    world = World(slow())
    job = submitted(world)
    world.deliver(seconds=12)
    kept = world.log_text(job)
    world.container.job_specs.delete(job.id)

    world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.length) == (Status.FAILED, len(kept))
    assert world.provider.cancels == ["resp_0"]
    row = world.container.results.get(job.id, 1)
    assert row is not None
    assert (row.text, row.usage and row.usage.estimated) == (kept, True)
    assert world.assembled().text == kept


def test_a_hanging_provider_does_not_keep_the_sweeper_from_ending_a_job() -> None:
    """Stopping the response is abandoned after ten seconds and logged."""
    world = World(slow())
    job = submitted(world)
    kill(world, 6)
    cancel_job(world.container, world.job(job))

    async def hang(_response_id: str) -> None:
        await asyncio.sleep(3600)

    world.provider.cancel = hang  # type: ignore[method-assign]
    before = world.clock.now()
    world.sweep(after=40)

    assert world.job(job).status is Status.CANCELLED
    assert world.clock.now() - before <= 51_000
    assert ("response_not_cancelled", "resp_0") in [(fact, about.get("response_id")) for fact, about in world.log_lines]


# ---- what is left at the provider


def test_the_response_of_a_completed_job_is_deleted_at_the_provider() -> None:
    """After the record says that the job has ended; until then a successor may need it."""
    world = World(slow())
    job = submitted(world)
    seen: list[Status] = []
    delete = world.provider.delete

    async def note(response_id: str) -> None:
        seen.append(world.job(job).status)
        await delete(response_id)

    world.provider.delete = note  # type: ignore[method-assign]
    world.deliver(seconds=12)
    assert world.provider.deletes == []
    world.deliver()

    assert (world.provider.deletes, seen) == (["resp_0"], [Status.COMPLETED])
    assert_one_text(world, job)


def test_every_response_of_a_job_with_several_attempts_is_deleted() -> None:
    """A failed, a cancelled and an invalid one keep their prompt at the provider as well."""
    world = World(slow(error=ProviderUnavailable()), Script(deltas=WORDS, every=60.0), Script(deltas=["second"]))
    submitted(world, timeout=100.0)
    for _ in range(3):
        world.clock.advance(60)
        world.deliver()

    assert world.provider.deletes == ["resp_0", "resp_1", "resp_2"]


def test_the_sweeper_deletes_the_response_of_a_job_that_it_ends() -> None:
    """With the result that a dead worker had stored, or because a cancel was requested."""
    world = World(slow(), slow())
    finished = submitted(world)
    replaced = world.container.jobs.replace

    def die_before_the_end(seen: Job, new: Job) -> None:
        if new.status.is_terminal:
            raise KeyError("the worker died")
        replaced(seen, new)

    world.container.jobs.replace = die_before_the_end  # type: ignore[method-assign]
    with suppress(PartialBatchFailure):
        world.deliver()
    world.container.jobs.replace = replaced  # type: ignore[method-assign]
    assert world.provider.deletes == []

    world.sweep(after=40)
    assert (world.job(finished).status, world.provider.deletes) == (Status.COMPLETED, ["resp_0"])

    cancelled = submitted(world)
    kill(world, 6)
    cancel_job(world.container, world.job(cancelled))
    world.sweep(after=40)
    assert (world.job(cancelled).status, world.provider.deletes) == (Status.CANCELLED, ["resp_0", "resp_1"])


def test_a_response_whose_id_cannot_be_stored_is_deleted() -> None:
    world = World(slow())
    submitted(world)
    replaced = world.container.jobs.replace

    def refuse_response_id(seen: Job, new: Job) -> None:
        if new.response_id and not seen.response_id:
            raise KeyError("write failed")
        replaced(seen, new)

    world.container.jobs.replace = refuse_response_id  # type: ignore[method-assign]
    world.deliver()

    assert world.provider.deletes == ["resp_0"]


@pytest.mark.parametrize("failures", [1, 9])
def test_a_provider_that_does_not_delete_delays_no_job_and_fails_none(failures: int) -> None:
    """It is asked again a few times; then the fact is logged."""
    world = World(slow())
    world.provider.errors["delete"] = [ProviderUnavailable()] * failures
    job = submitted(world)

    world.deliver()

    assert world.job(job).status is Status.COMPLETED
    assert world.assembled().done
    assert world.provider.deletes == (["resp_0"] if failures == 1 else [])
    logged = [about["response_id"] for fact, about in world.log_lines if fact == "response_not_deleted"]
    assert logged == ([] if failures == 1 else ["resp_0"])


def test_a_plain_job_deletes_nothing() -> None:
    """Its response is not stored, unless the caller asked for that with `store`, and then it is the caller's."""
    world = World()
    world.submit(config={"openai": {"store": True}})
    world.deliver()

    assert world.provider.deletes == []
