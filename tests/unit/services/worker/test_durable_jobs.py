"""Durable jobs: the response outlives its worker, and whoever has the job next goes on with it. One attempt, one text, paid for once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.failures import ProviderConnectionLost, ProviderUnavailable, StreamCut
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import MAX_ISOLATED_CRASHES
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.streaming.read_text import read_text
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.world import World, kill

WORDS = [f"w{number} " for number in range(60)]
TEXT = "".join(WORDS)


def slow(**more: Any) -> Script:
    """Half a minute of text."""
    return Script(deltas=WORDS, every=0.5, **more)


def submitted(world: World, **config: Any) -> Job:
    job = world.submit(config={"durable": True, **config})
    world.watch(job)
    return job


def expect_one_text(world: World, job: Job, text: str = TEXT) -> None:
    """Completed in one attempt by one response, kept and shown as it was sent, and nobody was told to start over."""
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


def test_its_response_is_stored_before_anything_of_it_is_shown_or_kept() -> None:
    """Killed at any later moment, a successor knows where to go on [6]."""
    world = World(slow())
    job = submitted(world)
    stored: list[str | None] = []
    post = world.container.sockets.post

    def look_and_post(endpoint: str, connection_id: str, data: bytes) -> None:
        if json.loads(data)["event"] == "tokens":
            stored.append(world.job(job).response_id)
        post(endpoint, connection_id, data)

    world.container.sockets.post = look_and_post  # type: ignore[method-assign]

    world.deliver()

    assert set(stored) == {"resp_0"}
    assert world.provider.requests[0].background
    expect_one_text(world, job)


@pytest.mark.parametrize("breaks", [(1,), (7,), (20, 3, 10), (1, 1, 1)])
@pytest.mark.parametrize("lost", [ProviderConnectionLost, StreamCut])
def test_a_stream_that_breaks_is_taken_up_behind_the_last_event(breaks: tuple[int, ...], lost: type[Exception]) -> None:
    """By the same worker, at once."""
    world = World(slow(breaks=breaks, lost=lost))
    job = submitted(world)

    world.deliver()

    expect_one_text(world, job)
    assert len(world.provider.resumes) == len(breaks)
    assert not world.provider.fetches


@pytest.mark.parametrize("seconds", [1, 4.2, 9, 21, 29.9])
def test_a_successor_goes_on_with_a_dead_workers_response(seconds: float) -> None:
    """Same attempt, no new request, nothing lost or doubled, however far the dead one had come."""
    world = World(slow())
    job = submitted(world)
    kill(world, seconds)
    assert world.job(job).response_id == "resp_0"

    world.sweep(after=40)
    taken = world.job(job)
    assert (taken.status, taken.attempt, taken.crashes, taken.length) == (Status.QUEUED, 1, 1, None)
    assert not world.container.results.attempts(job.id)
    world.deliver()

    expect_one_text(world, job)


def test_a_worker_hands_over_in_good_time() -> None:
    """Four invocations of twelve seconds carry one answer of thirty; watchers notice nothing."""
    world = World(slow())
    job = submitted(world)

    for _ in range(4):
        world.deliver(seconds=12)

    expect_one_text(world, job)
    assert [fact for fact, _ in world.facts].count("attempt_handed_over") == 3
    assert world.job(job).crashes == 0


def test_what_a_reader_sees_between_two_workers_is_not_the_end() -> None:
    """The text of an attempt that is handed over may still grow: a poll is not told that it is done."""
    world = World(slow())
    job = submitted(world)
    world.deliver(seconds=12)

    part = read_text(world.container.chunks, world.container.results, world.job(job), 0)

    assert world.job(job).status is Status.QUEUED
    assert part.text == world.log_text(job)
    assert not part.done


def test_half_a_character_goes_over_whole() -> None:
    """The emoji's halves are in two events, and the hand-over between them: neither is lost, neither becomes a question mark."""
    deltas = ["a", "\ud83d", "\ude00", "b"]
    world = World(Script(deltas=deltas, every=4.0))
    job = submitted(world)

    world.deliver(seconds=12)  # leaves at 9.6 s
    assert world.log_text(job) == "a"
    world.deliver()

    expect_one_text(world, job, "a😀b")


def test_progress_never_goes_back_at_a_hand_over() -> None:
    """Percent, tokens, stages and milestones go on where they were."""
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


def test_where_a_stream_cannot_be_resumed_the_rest_is_fetched() -> None:
    """OpenAI refuses streams that are older than five minutes: the answer comes in one piece when it is whole."""
    world = World(slow(streams_for=5.0))
    job = submitted(world)
    kill(world, 10)
    world.sweep(after=40)

    world.deliver()

    expect_one_text(world, job)
    assert world.provider.fetches


def test_a_response_that_is_still_written_is_waited_for() -> None:
    """Within the attempt's time, at growing intervals; a fetch that fails is repeated."""
    world = World(slow(streams_for=1.0, breaks=(3,)))
    world.provider.trouble["fetch"] = [ProviderUnavailable(), ProviderConnectionLost()]
    job = submitted(world)

    world.deliver()

    expect_one_text(world, job)
    assert 3 < len(world.provider.fetches) < 12


def test_a_worker_that_waits_for_a_response_hands_over_too() -> None:
    """Polling ends in good time like streaming."""
    world = World(slow(streams_for=1.0, breaks=(3,)))
    job = submitted(world)

    for _ in range(4):
        world.deliver(seconds=12)

    expect_one_text(world, job)


def test_a_response_that_is_gone_means_a_new_attempt() -> None:
    """Shown as such, and not held against the job; the text of both is kept apart."""
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


def test_losing_responses_again_and_again_comes_to_an_end() -> None:
    """The second loss in a row counts like any other failure."""
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


def test_another_text_at_a_resumption_is_never_mixed_with_the_first() -> None:
    """What comes again is compared with what is kept: where it differs a new attempt begins, and the response is stopped."""
    other = [word.upper() for word in WORDS]
    world = World(slow(replays=other), Script(deltas=["second"]))
    job = submitted(world)
    kill(world, 9)
    chunks = world.container.chunks.rows
    last = max(chunks)
    assert last[2] > 10
    chunks[last] = replace(chunks[last], sequence=5, sequence_offset=6)  # as if it were cut inside an event
    world.sweep(after=40)

    world.deliver()
    assert world.job(job).reason == "response_lost"
    world.deliver()

    assert world.assembled().text == "second"
    assert world.frames("c1", "reset")
    assert world.provider.cancels == ["resp_0"]


def test_what_comes_again_and_is_kept_already_is_skipped() -> None:
    """A chunk may be cut inside an event; the event comes again whole."""
    world = World(slow())
    job = submitted(world)
    kill(world, 9)
    last = max(world.container.chunks.rows)
    world.container.chunks.rows[last] = replace(world.container.chunks.rows[last], sequence=5, sequence_offset=len(WORDS[0] + WORDS[1]))
    world.sweep(after=40)

    world.deliver()

    expect_one_text(world, job)


def test_a_response_that_could_not_be_stored_is_stopped() -> None:
    """Nobody would ever find it again: it would run on, and be charged."""
    world = World(slow())
    job = submitted(world)
    replaced = world.container.jobs.replace

    def refuse_the_response(seen: Job, new: Job) -> None:
        if new.response_id and not seen.response_id:
            raise KeyError("no such luck")
        replaced(seen, new)

    world.container.jobs.replace = refuse_the_response  # type: ignore[method-assign]
    world.deliver()

    assert world.provider.cancels == ["resp_0"]
    assert not world.provider.running
    assert not world.frames("c1", "tokens")
    assert world.job(job).status is Status.RETRYING


def test_cancelling_stops_the_response_too() -> None:
    """Closing a stream does not end a response in the background."""
    world = World(slow())
    job = submitted(world)
    world.loop.call_later(6.0, lambda: cancel_job(world.container, world.job(job)))

    world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.length) == (Status.CANCELLED, len(world.log_text(job)))
    assert TEXT.startswith(world.assembled().text)
    assert world.provider.cancels == ["resp_0"]


def test_a_cancel_between_two_workers_is_obeyed_by_the_next() -> None:
    """Which stops the response, keeps what there is, and asks for nothing more."""
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


def test_the_sweep_stops_the_response_of_a_job_that_it_ends() -> None:
    """Cancelled when its worker was dead already: nobody else would."""
    world = World(slow())
    job = submitted(world)
    kill(world, 6)
    cancel_job(world.container, world.job(job))

    world.sweep(after=40)

    assert world.job(job).status is Status.CANCELLED
    assert world.provider.cancels == ["resp_0"]


def test_a_poisonous_response_is_stopped_when_the_job_fails() -> None:
    """After its allowance of crashes alone."""
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


def test_its_time_runs_on_from_worker_to_worker() -> None:
    """`config.timeout` bounds the attempt, not one worker's part in it; what it bounds is stopped."""
    world = World(slow())
    job = submitted(world, timeout=20.0, max_attempts=1)

    for _ in range(3):
        world.deliver(seconds=12)

    ended = world.job(job)
    assert ended.status is Status.FAILED
    assert ended.error is not None
    assert (ended.error.code, ended.attempt) == ("timeout", 1)
    assert world.provider.cancels == ["resp_0"]


def test_a_response_that_fails_is_an_ordinary_failure() -> None:
    """Told by its stream, or by what is fetched: retried as a new attempt, and held against the job."""
    world = World(slow(error=ProviderUnavailable()), Script(deltas=["second"]))
    job = submitted(world)

    world.deliver()
    failed = world.job(job)
    assert (failed.status, failed.reason, failed.tries) == (Status.RETRYING, "provider_unavailable", 1)
    world.clock.advance(400)
    world.deliver()

    assert world.job(job).status is Status.COMPLETED
    assert world.assembled().text == "second"


def test_a_plain_answer_is_tried_again_when_its_workers_time_is_over() -> None:
    """It cannot be handed over: at once a new attempt, which is not held against the job; the text that was shown is withdrawn."""
    world = World(slow(), Script(deltas=["second"]))
    job = world.submit(config={"max_attempts": 1})
    world.watch(job)

    world.deliver(seconds=12)
    given_back = world.job(job)
    assert (given_back.status, given_back.reason, given_back.tries) == (Status.RETRYING, "worker_ending", 0)
    world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.attempt) == (Status.COMPLETED, 2)
    assert world.assembled().text == "second"
    assert [row.error_code for row in world.container.results.attempts(job.id)] == ["worker_ending", None]


def test_an_answer_that_is_short_enough_ends_before_the_deadline() -> None:
    """A worker near its end lets short streams finish."""
    world = World(Script(deltas=WORDS[:8], every=1.0))
    job = world.submit()

    world.deliver(seconds=12)

    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 1)


def test_a_worker_near_its_end_begins_nothing() -> None:
    """The wake-up is sent again as it is; no attempt is used up."""
    world = World()
    job = world.submit()

    world.deliver(seconds=0)

    assert world.job(job) == job
    world.deliver()
    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 1)


def test_of_two_workers_of_one_attempt_the_later_ones_result_stays() -> None:
    """A worker that was taken for dead wakes and writes what it makes of its part: the row of the one that finished is not touched."""
    world = World(slow())
    job = submitted(world)
    world.deliver(seconds=12)
    world.deliver()
    whole = world.container.results.get(job.id, 1)
    assert whole is not None
    world.container.results.put(replace(whole, text="", status="failed", generation=1), "acme")

    assert world.container.results.get(job.id, 1) == whole


def test_a_store_that_does_not_answer_at_the_hand_over_loses_nothing() -> None:
    """The job is left as it is; the sweep finds it, and a successor goes on."""
    world = World(slow())
    job = submitted(world)
    with refusing(world.container.queues, "send", 100), pytest.raises(Exception, match="come again"):
        world.deliver(seconds=12)

    world.sweep(after=130)
    world.deliver()

    expect_one_text(world, job)


def test_a_job_whose_content_is_gone_ends_with_what_was_said() -> None:
    """Its response is stopped, its text is kept."""
    world = World(slow())
    job = submitted(world)
    world.deliver(seconds=12)
    kept = world.log_text(job)
    world.container.job_specs.forget(job.id)

    world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.length) == (Status.FAILED, len(kept))
    assert world.provider.cancels == ["resp_0"]
    row = world.container.results.get(job.id, 1)
    assert row is not None
    assert (row.text, row.usage and row.usage.estimated) == (kept, True)
    assert world.assembled().text == kept


def test_a_provider_that_hangs_keeps_neither_a_job_nor_the_sweep_from_the_end() -> None:
    """It is asked for ten seconds to stop the response; then the job ends all the same, and the log says what may run on."""
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
    assert ("response_not_cancelled", "resp_0") in [(fact, about.get("response_id")) for fact, about in world.facts]
