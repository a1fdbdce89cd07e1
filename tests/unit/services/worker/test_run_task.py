"""Task handlers: jobs without an OpenAI call, under the same rules as jobs with one."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import Detail, Forbidden, InvalidRequest, Throttled, Unavailable
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.worker.process_messages import process_messages
from chalicelib.services.worker.run_task import TaskRun
from tests.kit.failing_store import refusing
from tests.kit.task_types import chore, chore_world, run_to_end, with_job_types
from tests.kit.world import World, kill

OLGA = Caller(tenant="acme", user="olga", role=Role.OPERATOR, key_id="key_2", key_hash="hash2")


async def answer(task: TaskRun) -> Any:
    return {"got": task.spec.input, "for": task.caller.user}


def submitted(world: World, given: Any = None, **fields: Any) -> Job:
    return world.submit(None, input=given if given is not None else {"n": 1}, job_type="chore", **fields)


def test_the_return_value_of_a_task_handler_becomes_the_result() -> None:
    """The attempt has no tokens, no cost and no model."""
    world = chore_world(answer, response_schema={"type": "object", "required": ["got"]})
    job = submitted(world)

    world.deliver()

    ended, kept = world.job(job), world.container.results.get(job.id, 1)
    assert kept is not None
    assert (ended.status, ended.model, ended.usage, ended.cost) == (Status.COMPLETED, NO_MODEL, Usage(), 0)
    assert kept.parsed == json.loads(kept.text) == {"got": {"n": 1}, "for": "alice"}
    assert (kept.model, kept.cost, kept.first_token_at) == (NO_MODEL, 0, None)
    assert world.log_text(job) == kept.text
    assert (job.estimated_cost, job.max_cost) == (0, 0)
    assert world.provider.requests == []


def test_a_task_result_that_violates_its_schema_fails_the_job() -> None:
    """Such a result is a bug of the handler and must not look valid."""
    world = chore_world(answer, response_schema={"type": "object", "required": ["rows"]})
    job = submitted(world, config={"max_attempts": 1})

    world.deliver()

    error = world.job(job).error
    assert error is not None
    assert (error.code, "rows" in error.message) == ("output_invalid", True)


def test_a_task_asks_for_no_price_and_changes_no_circuit_breaker() -> None:
    world = chore_world(answer)
    with refusing(world.container.prices, "of", 10**6, RuntimeError) as asked:
        job = submitted(world)
        world.deliver()

    assert (world.job(job).status, asked) == (Status.COMPLETED, [0])
    assert world.container.circuit_breakers.all() == []


@pytest.mark.parametrize(
    ("problem", "code", "attempts"),
    [
        (Throttled(), "store_unavailable", 3),
        (InvalidRequest(details=(Detail("input.ids", "must not be empty"),)), "request_invalid", 1),
        (RuntimeError("a secret"), "internal_error", 3),
        (ClientError({"Error": {"Code": "AccessDeniedException", "Message": "a secret"}}, "DeleteItem"), "internal_error", 3),
    ],
)
def test_task_errors_map_to_error_codes_and_numbers_of_attempts(problem: Exception, code: str, attempts: int) -> None:
    """The message of an unexpected exception is not exposed."""

    async def fail(_task: TaskRun) -> Any:
        raise problem

    world = chore_world(fail)
    job = submitted(world)

    run_to_end(world, [job])

    ended = world.job(job)
    assert ended.error is not None
    assert (ended.status, ended.error.code, ended.attempt) == (Status.FAILED, code, attempts)
    assert "secret" not in ended.error.message
    assert code != "request_invalid" or "input.ids must not be empty" in ended.error.message


def test_a_task_that_is_refused_a_right_once_is_run_again_and_completes() -> None:
    """A deployment takes rights away at once, also from invocations that run the code before."""
    refused = [ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "AbortMultipartUpload")]

    async def abort(_task: TaskRun) -> Any:
        if refused:
            raise refused.pop()
        return {}

    world = chore_world(abort)
    job = submitted(world)

    world.deliver()
    failed = world.job(job)
    assert (failed.status, failed.reason) == (Status.RETRYING, "internal_error")
    run_to_end(world, [job])

    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 2)


def test_task_retries_follow_the_schedule_of_the_job_type() -> None:
    times: list[int] = []

    async def fail(task: TaskRun) -> Any:
        times.append(task.context.clock.now())
        raise Unavailable

    world = chore_world(fail, retry_schedule=(5.0, 40.0))
    run_to_end(world, [submitted(world)])

    assert [round((later - sooner) / 1000) for sooner, later in pairwise(times)] == [5, 40]


def test_a_cancelled_task_stops_after_its_current_call_within_two_seconds() -> None:
    """The call in progress returns first, so no thread outlives the task."""
    calls: list[str] = []

    async def slow_offload(call: Any, *args: Any) -> Any:
        await asyncio.sleep(0.7 if getattr(call, "__name__", "") == "step" else 0)
        return call(*args)

    def step() -> None:
        calls.append("ended")

    async def work(task: TaskRun) -> Any:
        while True:
            calls.append("begun")
            await task.run_sync(step)

    world = World(job_type=with_job_types(chore(work)), offload=slow_offload)
    job = submitted(world)

    async def scenario() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "work", world.container.queues.receive("work")))
        await asyncio.sleep(3.1)
        cancel_job(world.container, world.job(job))
        asked = world.clock.now()
        await worker
        assert world.clock.now() - asked <= 2_000

    world.loop.run_until_complete(scenario())

    assert world.job(job).status is Status.CANCELLED
    assert calls.count("begun") == calls.count("ended")


def test_config_timeout_bounds_a_task() -> None:
    async def work(_task: TaskRun) -> Any:
        await asyncio.sleep(1_000)

    world = chore_world(work)
    job = submitted(world, config={"timeout": 20, "max_attempts": 1})

    world.deliver()

    error = world.job(job).error
    assert error is not None
    assert (error.code, (world.job(job).finished_at or 0) - (world.job(job).started_at or 0)) == ("timeout", 20_000)


def test_a_task_cut_off_by_the_end_of_an_invocation_runs_again() -> None:
    """The interrupted attempt does not count against `max_attempts`."""
    durations = [100.0, 1.0]

    async def work(_task: TaskRun) -> Any:
        await asyncio.sleep(durations.pop(0))
        return "done"

    world = chore_world(work)
    job = submitted(world, config={"max_attempts": 1})
    world.deliver(seconds=60)
    interrupted = world.job(job)

    run_to_end(world, [job])

    assert (interrupted.status, interrupted.reason, interrupted.tries) == (Status.RETRYING, "worker_ending", 0)
    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 2)


def test_a_task_of_a_killed_worker_runs_again() -> None:
    """The lost attempt is recorded without cost."""
    begun: list[str] = []

    async def work(task: TaskRun) -> Any:
        begun.append(task.job.owner or "")
        await asyncio.sleep(5)
        return len(begun)

    world = chore_world(work)
    job = submitted(world)
    kill(world, 2.0)

    run_to_end(world, [job])

    rows = [world.container.results.get(job.id, attempt) for attempt in (1, 2)]
    assert (world.job(job).status, world.job(job).attempt, len(set(begun))) == (Status.COMPLETED, 2, 2)
    assert [(row.error_code, row.cost, row.usage) for row in rows if row] == [("worker_lost", 0, Usage()), (None, 0, Usage())]


async def _ten_steps(task: TaskRun) -> Any:
    task.start_stage("doing")
    for number in range(10):
        await asyncio.sleep(3)
        task.report_progress(number + 1, 10)
    task.report_progress(2, 10)
    task.record_milestone("all steps done", "The task has finished its ten steps.")
    await asyncio.sleep(3)
    return "done"


def test_subscribers_receive_progress_and_milestone_frames_of_a_task() -> None:
    """The percentage never decreases, and the end frame comes last."""
    world = chore_world(_ten_steps)
    job = submitted(world)
    world.watch(job)

    world.deliver()

    percentages = [frame["progress_percentage"] for frame in world.frames("c1", "progress")]
    assert percentages == sorted(percentages)
    assert {9.9, 49.5, 99.0} <= set(percentages)
    assert [frame["name"] for frame in world.frames("c1", "milestone")] == ["all steps done"]
    assert world.assembled().text == '"done"'
    assert world.frames("c1")[-1]["event"] == "job_completed"


def test_polling_shows_task_progress_before_there_is_text() -> None:
    """The remaining time is extrapolated from the speed so far."""
    world = chore_world(_ten_steps)
    job = submitted(world)
    seen: list[dict[str, Any]] = []

    async def scenario() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "work", world.container.queues.receive("work")))
        await asyncio.sleep(17)
        last = world.container.chunks.last(job.id, 1)
        assert last is not None
        seen.append(last.progress)
        await worker

    world.loop.run_until_complete(scenario())

    progress = seen[0]
    assert (progress["progress_percentage"], progress["stage"], progress["tokens_received"]) == (49.5, "doing", 0)
    assert progress["estimated_seconds_remaining"] == pytest.approx(15, abs=1)
    assert progress["estimated_total_tokens"] is None
    assert progress["performance_metrics"]["api_call_count"] == 0
    chunks = world.container.chunks.read(job.id, 1)
    assert [chunk.text for chunk in chunks] == ['"done"']
    assert {event["kind"] for event in chunks[0].events} == {"stage", "milestone"}


def test_a_task_completes_although_its_progress_cannot_be_stored() -> None:
    world = chore_world(_ten_steps)
    job = submitted(world)

    with refusing(world.container.chunks, "put_progress", 10**6):
        world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_a_task_may_report_progress_with_a_total_of_zero() -> None:
    async def work(task: TaskRun) -> Any:
        task.report_progress(0, 0)
        return "done"

    world = chore_world(work)
    job = submitted(world)
    world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_model_settings_in_the_config_of_a_task_are_refused() -> None:
    """All of them are named at once; the other settings are accepted."""
    world = chore_world(answer)

    with pytest.raises(InvalidRequest) as refused:
        submitted(world, config={"model": "gpt-4o", "temperature": 0.3, "max_tokens": 100, "durable": True, "timeout": 60})

    assert [detail.path for detail in refused.value.details] == [
        "config.model",
        "config.max_tokens",
        "config.temperature",
        "config.durable",
    ]
    assert submitted(world, config={"timeout": 60, "max_attempts": 2, "durable": False, "fallback_models": []}).max_attempts == 2


def test_a_task_submitted_with_a_prompt_is_refused() -> None:
    world = chore_world(answer)

    with pytest.raises(InvalidRequest) as refused:
        world.submit("Do it.", job_type="chore")

    assert [detail.path for detail in refused.value.details] == ["input"]


def test_a_job_type_with_a_min_role_refuses_lower_roles() -> None:
    """The error names the required role."""
    world = World(job_type=with_job_types(chore(answer, min_role="operator")))

    with pytest.raises(Forbidden, match="need the role operator; this key is a user"):
        submitted(world)

    assert submitted(world, caller=OLGA).user == "olga"


@pytest.mark.parametrize(("user", "role"), [(None, "operator"), ("olga", "operator"), ("alice", "user")])
def test_a_task_runs_with_the_rights_of_its_submitter(user: str | None, role: str) -> None:
    """On behalf of another user it has a user's rights, because that user reads the result."""

    async def work(task: TaskRun) -> Any:
        return [task.caller.user, task.caller.role.label]

    world = chore_world(work)
    job = submitted(world, caller=OLGA, user=user)
    world.deliver()

    kept = world.container.results.get(job.id, 1)
    assert kept is not None
    assert kept.parsed == [user or "olga", role]
