"""The worker, end to end in memory: from a wake-up to the text that every reader holds."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from chalicelib import job_types
from chalicelib.domain.errors import JobTypeNotFound, StaleVersion, Unavailable, UnreadableRecord
from chalicelib.domain.failures import ProviderQuotaExhausted, ProviderUnavailable, StreamCut
from chalicelib.domain.jobs.job import Status, Usage
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.text import MAX_FRAME_POINTS
from chalicelib.ports import QueueMessage, ResponseEnded
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.worker.process_messages import PartialBatchFailure, process_messages
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.time import run
from tests.kit.unreadable import REASON, make_unreadable
from tests.kit.world import World

LONG = Script(deltas=[f"token{n} " for n in range(400)], every=0.05)


def cancel_after(world: World, seconds: float, job: Any) -> Any:
    async def work() -> None:
        await asyncio.sleep(seconds)
        cancel_job(world.container, world.job(job))

    return work()


def deliver_with(world: World, *coroutines: Any, lane: str = "normal") -> None:
    """Run a worker on the messages of a lane, and these coroutines at the same time."""
    received = world.container.queues.receive(lane)

    async def work() -> None:
        await asyncio.gather(process_messages(world.container, lane, received), *coroutines)

    run(world.loop, work())


def test_a_completed_job_has_the_same_text_in_log_result_and_frames() -> None:
    world = World()
    job = world.submit()
    world.watch(job)

    world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.attempt, ended.length) == (Status.COMPLETED, 1, 12)
    assert world.log_text(job) == world.provider.sent[0] == "Hello, world"
    result = world.container.results.get(job.id, 1)
    assert result is not None
    assert result.text == "Hello, world"
    assert world.assembled().text == "Hello, world"
    assert world.assembled().done
    assert ended.usage == Usage(input=10, output=3)
    assert ended.cost == 10 * 150 + 3 * 600
    assert ended.due_at is None
    assert ended.first_token_at is not None


@pytest.mark.parametrize(
    "deltas",
    [
        ["👩‍👩‍👧", " family", " 🇮🇹"],
        ["e", "\u0301", " combining"],
        ["שלום", " ", "عالم"],
        ["broken \ud83d", "\ude00 pair", " and \ud83d"],
        ["", "empty", "", ""],
        ["nul \x00 and \u2028 separators"],
        ["x" * 70_000, "y" * 130_000],
    ],
    ids=["emoji", "combining", "right-to-left", "surrogates", "empty deltas", "control", "200 KB"],
)
def test_any_split_of_the_text_arrives_without_a_broken_character(deltas: list[str]) -> None:
    """Frames stay within `MAX_FRAME_POINTS`, which keeps them below 32 KB."""
    world = World(Script(deltas=deltas))
    job = world.submit()
    world.watch(job, "early")

    world.deliver()

    ended = world.job(job)
    text = world.log_text(job)
    assert ended.length == len(text)
    assert text == "".join(deltas).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert world.assembled("early").text == text
    assert all(len(frame.get("text", "")) <= MAX_FRAME_POINTS for frame in world.frames("early"))


def test_a_long_stream_is_batched_into_few_frames_and_fewer_chunks() -> None:
    """400 tokens in 20 seconds make about 100 frames and 20 chunks."""
    world = World(LONG)
    job = world.submit()
    world.watch(job)

    world.deliver()

    assert 30 < len(world.frames("c1", "tokens")) < 110
    assert 4 <= len(world.container.chunks.read(job.id, 1)) <= 21
    assert world.assembled().done


@pytest.mark.parametrize(("mode", "least", "most"), [("realtime", 60, 110), ("batched", 15, 25), ("none", 1, 2)])
def test_the_streaming_mode_sets_the_frame_rate(mode: str, least: int, most: int) -> None:
    """`realtime` sends up to ten frames a second, `batched` one, `none` only the whole text."""
    world = World(LONG)
    job = world.submit(config={"streaming_mode": mode})
    world.watch(job)

    world.deliver()

    assert least <= len(world.frames("c1", "tokens")) <= most
    assert world.assembled().text == world.log_text(job)
    assert world.assembled().done


def test_a_closing_frame_is_sent_once_before_the_connection_expires() -> None:
    """AWS closes every socket after two hours; the client reconnects from its offset."""
    world = World(LONG)
    job = world.submit()
    world.watch(job, "old", expires_in=605.0)
    world.watch(job, "new")

    world.deliver()

    assert len(world.frames("old", "closing")) == 1
    assert not world.frames("new", "closing")


def test_a_stale_wake_up_is_dropped() -> None:
    """Its generation is another one, or its job has ended or does not exist."""
    world = World()
    job = world.submit()
    world.deliver()
    ended = world.job(job)

    world.deliver(messages=[world.wake(job), world.wake(job, 7), QueueMessage('{"job_id": "job_unknown", "generation": 1}', "r")])

    assert world.job(job) == ended
    assert len(world.provider.requests) == 1


def test_a_duplicate_message_in_one_batch_runs_the_job_once() -> None:
    """Each claim call has its own nonce (protocol rule 3: the owner is a nonce of the claim)."""
    world = World()
    job = world.submit()

    world.deliver(messages=[world.wake(job), world.wake(job)])

    assert len(world.provider.requests) == 1
    assert world.job(job).status is Status.COMPLETED
    assert world.job(job).run_alone  # its duplicate does not count as another job


def test_malformed_messages_go_to_the_dead_letter_queue_with_a_reason() -> None:
    """The valid message of the same batch is processed."""
    world = World()
    job = world.submit()
    garbage = [
        QueueMessage(body, f"g{n}") for n, body in enumerate(["", "not json", "[]", '{"job_id": 5}', '{"job_id": "x", "generation": true}'])
    ]

    world.deliver(messages=[*garbage, world.wake(job)])

    assert [body for body, _ in world.container.queues.dead_lettered["normal"]] == [message.body for message in garbage]
    assert all(reason for _, reason in world.container.queues.dead_lettered["normal"])
    assert world.job(job).status is Status.COMPLETED


def test_a_retryable_failure_is_retried_as_a_new_attempt() -> None:
    """The new attempt starts at offset 0, subscribers get `reset`, and both are recorded."""
    world = World(Script(deltas=["half an ans"], error=StreamCut()), Script(deltas=["whole"]))
    job = world.submit()
    world.watch(job)

    world.deliver()
    retrying = world.job(job)
    assert (retrying.status, retrying.generation, retrying.length) == (Status.RETRYING, 2, 11)
    assert retrying.error is not None
    assert retrying.error.code == "stream_cut"
    world.clock.advance(5)
    world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.attempt, ended.error) == (Status.COMPLETED, 2, None)
    assert world.frames("c1", "retrying")
    assert world.frames("c1", "reset")[0]["attempt"] == 2
    assert world.assembled().text == "whole"
    assert [kept.error_code for kept in world.container.results.attempts(job.id)] == ["stream_cut", None]


def test_a_job_fails_after_max_attempts_and_keeps_its_last_text() -> None:
    """`max_attempts` includes the first attempt."""
    world = World(Script(deltas=["so far"], error=ProviderUnavailable()))
    job = world.submit(config={"max_attempts": 2})
    world.watch(job)

    world.deliver()
    world.clock.advance(10)
    world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.attempt, ended.length) == (Status.FAILED, 2, 6)
    assert ended.error is not None
    assert ended.error.code == "provider_unavailable"
    assert world.frames("c1", "job_failed")[0]["length"] == 6
    assert world.assembled().text == "so far"


def test_an_exhausted_quota_is_not_retried() -> None:
    world = World(Script(deltas=[], error=ProviderQuotaExhausted()))
    job = world.submit()

    world.deliver()

    assert world.job(job).status is Status.FAILED
    assert len(world.provider.requests) == 1


def test_an_internal_error_fails_the_attempt_and_is_retried() -> None:
    """Otherwise the job would stay `processing` without a worker."""
    world = World(Script(deltas=["x"], error=KeyError("bug")), Script())
    job = world.submit()

    world.deliver()
    assert world.job(job).status is Status.RETRYING
    world.clock.advance(5)
    world.deliver()

    assert world.job(job).status is Status.COMPLETED
    assert any(fact == "attempt_error" for fact, _ in world.log_lines)


def test_a_job_without_its_spec_fails_with_an_attempt_record() -> None:
    """It can never run, so it must not be claimed again and again."""
    world = World()
    job = world.submit("a")
    world.container.job_specs.delete(job.id)

    world.deliver()

    error = world.job(job).error
    assert (error.code if error else None) == "content_gone"
    rows = world.container.results.attempts(job.id)
    assert [(row.attempt, row.status, row.error_code, row.usage, row.cost) for row in rows] == [(1, "failed", "content_gone", None, None)]


def test_a_job_of_an_unknown_type_is_held_and_runs_when_its_type_is_known() -> None:
    """A newer version of the code has accepted it; this one must not fail it."""
    world = World()
    job, known = world.submit(), world.container.job_type

    def unknown(name: str) -> JobType:
        raise JobTypeNotFound(name)

    vars(world.container)["job_type"] = unknown
    world.deliver()
    held = world.job(job)
    assert (held.status, held.reason, held.cause, held.attempt) == (Status.HELD, "type_unknown", "code:general", 0)

    vars(world.container)["job_type"] = known
    world.sweep(after=60)
    world.deliver()
    assert world.job(job).status is Status.COMPLETED


def test_a_job_whose_type_stays_unknown_expires() -> None:
    world = World()
    job = world.submit(expires_in=300.0)
    world.container.jobs.records[job.id] = replace(world.job(job), type="removed_type")

    world.deliver()
    world.sweep(after=600)

    assert world.job(job).status is Status.EXPIRED


def test_a_job_whose_spec_cannot_be_read_waits_for_a_version_that_can() -> None:
    """Neither its worker nor the sweeper of this version fails it, however often they meet it."""
    world = World()
    job = world.submit()

    with refusing(world.container.job_specs, "get", 10**6, UnreadableRecord):
        with pytest.raises(PartialBatchFailure):
            world.deliver()
        for _ in range(5):
            world.sweep(after=700)
        assert (world.job(job).status, world.job(job).crashes) == (Status.PROCESSING, 0)

    world.sweep(after=700)
    world.clock.advance(1_000)
    world.deliver()
    assert world.job(job).status is Status.COMPLETED


def test_an_unreadable_record_leaves_its_message_in_the_queue_and_stops_no_other() -> None:
    """A worker of the version that wrote the record may get the message; this one's lease is closed."""
    world = World()
    unknown, other = world.submit("a"), world.submit("b")
    unreadable = make_unreadable(world.container.jobs, unknown.id)

    with pytest.raises(PartialBatchFailure, match="1 of 2"):
        world.deliver()

    assert world.job(other).status is Status.COMPLETED
    assert [WakeUp.from_json(one.body).job_id for one in world.container.queues.messages["normal"]] == [unknown.id]
    assert world.container.leases.all() == []
    assert ("job_record_unreadable", {"job_id": unknown.id, "reason": REASON}) in world.log_lines

    unreadable.clear()
    world.clock.advance(1_000)
    world.deliver()
    assert world.job(unknown).status is Status.COMPLETED


def test_an_immediate_failure_writes_its_attempt_record_before_the_end() -> None:
    """After a crash in between, the job is reclaimed and no attempt lacks its record."""
    world = World()
    job = world.submit()
    world.container.job_specs.delete(job.id)
    put = world.container.results.put
    states: list[Status] = []

    def note(result: Any, tenant: str) -> None:
        states.append(world.job(job).status)
        put(result, tenant)

    world.container.results.put = note  # type: ignore[method-assign]
    world.deliver()

    assert states == [Status.PROCESSING]
    assert world.job(job).status is Status.FAILED


def test_usage_is_estimated_when_the_stream_is_cut() -> None:
    """A cut stream never reports its usage."""
    world = World(Script(deltas=["a", "b", "c"], error=StreamCut()))
    job = world.submit(config={"max_attempts": 1})

    world.deliver()

    usage = world.job(job).usage
    assert usage is not None
    assert usage.estimated
    assert usage.output == 3
    assert usage.input > 0


def test_a_begun_response_without_output_has_estimated_input_usage() -> None:
    """OpenAI has read the prompt by then; a refused request has used nothing."""
    begun, refused = World(Script(deltas=[], error=StreamCut())), World(Script(deltas=[], error=ProviderUnavailable(), refuses=True))
    jobs = [world.submit(config={"max_attempts": 1}) for world in (begun, refused)]

    begun.deliver()
    refused.deliver()

    usage = begun.job(jobs[0]).usage
    assert usage is not None
    assert (usage.estimated, usage.output) == (True, 0)
    assert usage.input > 0
    assert refused.job(jobs[1]).usage is None


def test_an_answer_cut_at_max_tokens_ends_incomplete() -> None:
    world = World(Script(end=ResponseEnded(Usage(input=1, output=3), "gpt-4o-mini", "max_tokens")))
    job = world.submit()
    world.watch(job)

    world.deliver()

    assert (world.job(job).status, world.job(job).incomplete_reason) == (Status.INCOMPLETE, "max_tokens")
    assert world.frames("c1", "job_incomplete")[0]["incomplete_details"]["reason"] == "max_tokens"


def test_a_model_refusal_fails_the_job_and_keeps_its_text() -> None:
    world = World(Script(deltas=["I cannot."], refusal=True))
    job = world.submit()

    world.deliver()

    ended = world.job(job)
    assert ended.status is Status.FAILED
    assert ended.error is not None
    assert ended.error.code == "content_refused"
    assert world.log_text(job) == "I cannot."


def test_a_json_answer_is_stored_raw_and_parsed() -> None:
    world = World(Script(deltas=['{"a": ', "[1, 2]}"]))
    job = world.submit(config={"response_format": "json"})

    world.deliver()

    result = world.container.results.get(job.id, 1)
    assert result is not None
    assert (result.text, result.parsed) == ('{"a": [1, 2]}', {"a": [1, 2]})


def test_an_answer_that_violates_its_schema_is_retried() -> None:
    schema = {"type": "json_schema", "schema": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}}
    world = World(Script(deltas=['{"n": "one"}']), Script(deltas=['{"n": 1}']))
    job = world.submit(config={"response_format": schema})

    world.deliver()
    assert world.job(job).reason == "output_invalid"
    world.clock.advance(5)
    world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_a_running_job_is_cancelled_within_two_seconds() -> None:
    """The provider's stream is closed, the text so far is kept, and its usage is recorded."""
    world = World(LONG)
    job = world.submit()
    world.watch(job)

    deliver_with(world, cancel_after(world, 4.0, job))

    ended = world.job(job)
    assert ended.status is Status.CANCELLED
    assert ended.finished_at is not None
    assert ended.finished_at - ended.created_at <= 6_000
    assert world.provider.open == 0
    assert 0 < (ended.length or 0) < 400 * 6
    assert world.log_text(job) == world.provider.sent[0]
    assert ended.usage is not None
    assert ended.usage.estimated
    assert world.assembled().text == world.log_text(job)


def test_a_cancel_requested_just_before_the_terminal_write_wins() -> None:
    """A flagged job never completes (protocol rule 8: the terminal write comes last)."""
    world = World(Script(deltas=["done"], first=0.1))
    job = world.submit()
    results = world.container.results
    put = results.put

    def cancel_then_put(*args: Any) -> None:
        cancel_job(world.container, world.job(job))
        put(*args)

    results.put = cancel_then_put  # type: ignore[method-assign]
    world.deliver()

    assert world.job(job).status is Status.CANCELLED


def test_a_timeout_fails_the_attempt_and_is_retried() -> None:
    """`config.timeout` bounds one attempt."""
    world = World(LONG, Script())
    job = world.submit(config={"timeout": 2.0})

    world.deliver()
    assert world.job(job).reason == "timeout"
    world.clock.advance(5)
    world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_late_subscribers_get_the_text_from_their_requested_offset() -> None:
    """A new subscription starts at 0; a returning client receives nothing twice."""
    world = World(LONG)
    job = world.submit()

    async def subscribe_late() -> None:
        await asyncio.sleep(5)
        world.watch(job, "late")
        world.watch(job, "again", attempt=1, offset=100)

    deliver_with(world, subscribe_late())

    assert world.assembled("late").text == world.log_text(job)
    assert world.frames("again", "tokens")[0]["offset"] == 100
    assert "".join(frame["text"] for frame in world.frames("again", "tokens")) == world.log_text(job)[100:]


def test_a_closed_socket_loses_its_subscription_and_disturbs_no_other() -> None:
    world = World(LONG)
    job = world.submit()
    world.watch(job, "gone")
    world.watch(job, "there")
    world.container.sockets.gone.add("gone")

    world.deliver()

    assert world.assembled("there").text == world.log_text(job)
    assert [subscription.connection_id for subscription in world.container.subscriptions.for_job(job.id)] == ["there"]


def test_a_socket_is_closed_after_its_api_key_is_revoked() -> None:
    """Its subscription is deleted; the job itself completes."""
    revoked: list[str] = []
    world = World(LONG, readers_of=lambda _job, key_hashes: set() if revoked else set(key_hashes))
    job = world.submit()
    world.watch(job)

    async def revoke() -> None:
        await asyncio.sleep(1)
        revoked.append("hash")

    deliver_with(world, revoke())

    assert world.container.sockets.closed == ["c1"]
    assert not world.container.subscriptions.for_job(job.id)
    assert not world.frames("c1", "job_completed")
    assert world.job(job).status is Status.COMPLETED


def test_a_busy_socket_receives_the_whole_text_later() -> None:
    """Sending resumes from the last acknowledged offset."""
    world = World(LONG)
    job = world.submit()
    world.watch(job)
    world.container.sockets.busy["c1"] = 6

    world.deliver()

    assert world.assembled().text == world.log_text(job)
    assert world.assembled().done


def test_one_invocation_runs_ten_jobs_concurrently() -> None:
    """Ten jobs take at most a tenth longer than one."""
    alone, ten = World(LONG), World(LONG)
    alone.submit()
    for number in range(10):
        ten.submit(f"prompt {number}")

    alone.deliver()
    ten.deliver()

    assert ten.loop.moment < alone.loop.moment * 1.1
    assert all(job.status is Status.COMPLETED for job in ten.container.jobs.records.values())


def test_a_message_is_acknowledged_when_its_job_ends_not_with_the_batch() -> None:
    """A later exception then returns only the unfinished messages to the queue."""
    world = World(Script(), LONG)
    first, second = world.submit("short"), world.submit("long")
    seen: list[tuple[float, int]] = []
    queues = world.container.queues
    acknowledge = queues.acknowledge

    def note(lane: str, receipts: Any) -> None:
        seen.append((world.loop.moment, len(receipts)))
        acknowledge(lane, receipts)

    queues.acknowledge = note  # type: ignore[method-assign]
    world.deliver()

    assert {world.job(first).status, world.job(second).status} == {Status.COMPLETED}
    assert [count for _, count in seen] == [1]
    assert seen[0][0] < 5


def test_a_failed_claim_leaves_its_message_in_the_queue() -> None:
    """The other job of the batch completes."""
    world = World()
    jobs = [world.submit("a"), world.submit("b")]
    replace = world.container.jobs.replace

    def broken(seen: Any, new: Any) -> None:
        if seen.id == jobs[0].id:
            raise Unavailable
        replace(seen, new)

    world.container.jobs.replace = broken  # type: ignore[method-assign]
    with pytest.raises(PartialBatchFailure):
        world.deliver()
    assert world.job(jobs[1]).status is Status.COMPLETED
    assert len(world.container.queues.messages["normal"]) == 1

    world.container.jobs.replace = replace  # type: ignore[method-assign]
    world.clock.advance(1000)
    world.deliver()

    assert world.job(jobs[0]).status is Status.COMPLETED


def test_a_fenced_worker_writes_nothing_more() -> None:
    """Protocol rule 2: a worker writes only while it owns the job."""
    world = World(LONG)
    job = world.submit()
    world.watch(job)

    def fenced(_lease: Any) -> None:
        raise StaleVersion(None)

    world.container.leases.renew = fenced  # type: ignore[method-assign]
    with pytest.raises(PartialBatchFailure):
        world.deliver()

    assert world.job(job).status is Status.PROCESSING
    assert not world.frames("c1", "job_completed", "job_failed", "retrying")
    assert world.provider.open == 0


def test_the_terminal_record_is_written_before_the_end_frame_is_sent() -> None:
    """Protocol rule 9: no frame before the write that it reports is acknowledged."""
    world = World()
    job = world.submit()
    world.watch(job)
    post = world.container.sockets.post

    def check_record(endpoint: str, connection: str, data: bytes) -> None:
        if b"job_completed" in data:
            assert world.job(job).status is Status.COMPLETED
        post(endpoint, connection, data)

    world.container.sockets.post = check_record  # type: ignore[method-assign]
    world.deliver()

    assert world.frames("c1", "job_completed")


def test_repeated_record_writes_after_a_lost_answer_change_nothing() -> None:
    """The SDK repeats such writes (protocol rule 3: the owner is a nonce of the claim)."""

    world = World()
    replace = world.container.jobs.replace

    def repeated(seen: Any, new: Any) -> None:
        replace(seen, new)
        replace(seen, new)

    world.container.jobs.replace = repeated  # type: ignore[method-assign]
    job = world.submit()
    world.watch(job)
    world.deliver()

    assert world.job(job).status is Status.COMPLETED
    assert world.assembled().text == "Hello, world"


def test_retry_delays_follow_the_schedule_of_the_job_type_to_the_second() -> None:
    """SQS cannot delay a message by half an hour, so the sweeper sends that wake-up."""
    world = World(Script(error=StreamCut()), Script(error=StreamCut()), Script(error=StreamCut()), Script(deltas=["at last"]))
    scheduled = replace(job_types.get("general"), retry_schedule=(60.0, 300.0, 1800.0))
    world.container.job_type = lambda _name: scheduled
    job = world.submit(config={"max_attempts": 4})

    delays = []
    for _ in range(3):
        world.deliver()
        retrying = world.job(job)
        assert retrying.resume_at is not None
        delays.append(round((retrying.resume_at - retrying.updated_at) / 1000))
        while world.clock.now() < retrying.resume_at:
            world.deliver()
            assert world.job(job).attempt == len(delays)
            world.sweep(after=30)
    world.clock.advance(1)
    world.deliver()

    assert delays == [60, 300, 1800]
    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 4)
