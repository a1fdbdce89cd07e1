"""Work that is no OpenAI call: under the same claim, cancel, time, retries and frames as an answer of a provider."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import Detail, Forbidden, InvalidRequest, Throttled, Unavailable
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.worker.process_messages import process_messages
from chalicelib.services.worker.run_task import TaskRun
from tests.kit.failing_store import refusing
from tests.kit.task_types import chore, doing, knowing, rest
from tests.kit.world import World, kill

OLGA = Caller(tenant="acme", user="olga", role=Role.OPERATOR, key_id="key_2", key_hash="hash2")


async def answer(task: TaskRun) -> Any:
    return {"got": task.body.input, "for": task.caller.user}


def submitted(world: World, given: Any = None, **fields: Any) -> Job:
    return world.submit(None, input=given if given is not None else {"n": 1}, job_type="chore", **fields)


def test_what_it_returns_is_the_result() -> None:
    """As text, parsed, with no tokens, no cost, no model, and a row in the ledger."""
    world = doing(answer, response_schema={"type": "object", "required": ["got"]})
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


def test_its_output_is_held_to_its_schema() -> None:
    """A fault of ours, which must not look like a result."""
    world = doing(answer, response_schema={"type": "object", "required": ["rows"]})
    job = submitted(world, config={"max_attempts": 1})

    world.deliver()

    error = world.job(job).error
    assert error is not None
    assert (error.code, "rows" in error.message) == ("output_invalid", True)


def test_neither_prices_nor_circuits_are_asked() -> None:
    """It has no model that could be dear or down."""
    world = doing(answer)
    with refusing(world.container.prices, "of", 10**6, RuntimeError) as asked:
        job = submitted(world)
        world.deliver()

    assert (world.job(job).status, asked) == (Status.COMPLETED, [0])
    assert world.container.circuit_breakers.all() == []


@pytest.mark.parametrize(
    ("problem", "code", "attempts"),
    [
        (Throttled(), "store_unavailable", 3),
        (InvalidRequest(details=(Detail("input.ids", "are none"),)), "request_invalid", 1),
        (RuntimeError("a secret"), "internal_error", 3),
    ],
)
def test_what_goes_wrong(problem: Exception, code: str, attempts: int) -> None:
    """A store that does not answer is tried again, a wrong input is not; what nobody thought of says nothing of itself."""

    async def fail(_task: TaskRun) -> Any:
        raise problem

    world = doing(fail)
    job = submitted(world)

    rest(world, [job])

    ended = world.job(job)
    assert ended.error is not None
    assert (ended.status, ended.error.code, ended.attempt) == (Status.FAILED, code, attempts)
    assert "secret" not in ended.error.message
    assert code != "request_invalid" or "input.ids are none" in ended.error.message


def test_retries_keep_the_types_schedule() -> None:
    """So many seconds before the second attempt, so many before the third."""
    times: list[int] = []

    async def fail(task: TaskRun) -> Any:
        times.append(task.context.clock.now())
        raise Unavailable

    world = doing(fail, retry_schedule=(5.0, 40.0))
    rest(world, [submitted(world)])

    assert [round((later - sooner) / 1000) for sooner, later in pairwise(times)] == [5, 40]


def test_a_cancel_stops_it_between_two_calls() -> None:
    """Within two seconds; the call that is under way returns first, and no thread outlives the work."""
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

    world = World(job_type=knowing(chore(work)), offload=slow_offload)
    job = submitted(world)

    async def story() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "normal", world.container.queues.receive("normal")))
        await asyncio.sleep(3.1)
        cancel_job(world.container, world.job(job))
        asked = world.clock.now()
        await worker
        assert world.clock.now() - asked <= 2_000

    world.loop.run_until_complete(story())

    assert world.job(job).status is Status.CANCELLED
    assert calls.count("begun") == calls.count("ended")


def test_it_has_the_time_of_an_attempt() -> None:
    """`config.timeout`, as for an answer."""

    async def work(_task: TaskRun) -> Any:
        await asyncio.sleep(1_000)

    world = doing(work)
    job = submitted(world, config={"timeout": 20, "max_attempts": 1})

    world.deliver()

    error = world.job(job).error
    assert error is not None
    assert (error.code, (world.job(job).finished_at or 0) - (world.job(job).started_at or 0)) == ("timeout", 20_000)


def test_near_the_end_of_an_invocation_it_is_given_on() -> None:
    """It begins anew with another worker, and no try is used up."""
    took = [100.0, 1.0]

    async def work(_task: TaskRun) -> Any:
        await asyncio.sleep(took.pop(0))
        return "done"

    world = doing(work)
    job = submitted(world, config={"max_attempts": 1})
    world.deliver(seconds=60)
    left = world.job(job)

    rest(world, [job])

    assert (left.status, left.reason, left.tries) == (Status.RETRYING, "worker_ending", 0)
    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 2)


def test_a_killed_worker_loses_nothing() -> None:
    """Another one does it again; the ledger has the first attempt, which cost nothing."""
    begun: list[str] = []

    async def work(task: TaskRun) -> Any:
        begun.append(task.job.owner or "")
        await asyncio.sleep(5)
        return len(begun)

    world = doing(work)
    job = submitted(world)
    kill(world, 2.0)

    rest(world, [job])

    rows = [world.container.results.get(job.id, attempt) for attempt in (1, 2)]
    assert (world.job(job).status, world.job(job).attempt, len(set(begun))) == (Status.COMPLETED, 2, 2)
    assert [(row.error_code, row.cost, row.usage) for row in rows if row] == [("worker_lost", 0, Usage()), (None, 0, Usage())]


async def _in_steps(task: TaskRun) -> Any:
    task.start_stage("doing")
    for number in range(10):
        await asyncio.sleep(3)
        task.report_progress(number + 1, 10)
    task.report_progress(2, 10)
    task.record_milestone("half of it twice", "all that there was")
    await asyncio.sleep(3)
    return "done"


def test_watchers_are_told_how_far_it_is() -> None:
    """Frames while it works: stages, every step, milestones, then the text and the end; the percentage never goes back."""
    world = doing(_in_steps)
    job = submitted(world)
    world.watch(job)

    world.deliver()

    told = [frame["progress_percentage"] for frame in world.frames("c1", "progress")]
    assert told == sorted(told)
    assert {9.9, 49.5, 99.0} <= set(told)
    assert [frame["name"] for frame in world.frames("c1", "milestone")] == ["half of it twice"]
    assert world.assembled().text == '"done"'
    assert world.frames("c1")[-1]["event"] == "job_completed"


def test_whoever_polls_sees_how_far_it_is() -> None:
    """Before there is any text; with the time that is left, by how fast it went so far."""
    world = doing(_in_steps)
    job = submitted(world)
    seen: list[dict[str, Any]] = []

    async def story() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "normal", world.container.queues.receive("normal")))
        await asyncio.sleep(17)
        last = world.container.chunks.last(job.id, 1)
        assert last is not None
        seen.append(last.progress)
        await worker

    world.loop.run_until_complete(story())

    progress = seen[0]
    assert (progress["progress_percentage"], progress["stage"], progress["tokens_received"]) == (49.5, "doing", 0)
    assert progress["estimated_seconds_remaining"] == pytest.approx(15, abs=1)
    assert progress["estimated_total_tokens"] is None
    assert progress["performance_metrics"]["api_call_count"] == 0
    chunks = world.container.chunks.read(job.id, 1)
    assert [chunk.text for chunk in chunks] == ['"done"']
    assert {event["kind"] for event in chunks[0].events} == {"stage", "milestone"}


def test_a_progress_that_cannot_be_kept_costs_nothing() -> None:
    world = doing(_in_steps)
    job = submitted(world)

    with refusing(world.container.chunks, "put_progress", 10**6):
        world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_an_expected_total_of_nothing_is_no_progress() -> None:
    """Nothing of nothing is not all."""

    async def work(task: TaskRun) -> Any:
        task.report_progress(0, 0)
        return "done"

    world = doing(work)
    job = submitted(world)
    world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_what_means_something_for_models_only_is_refused() -> None:
    """By name, all at once; the rest of the configuration holds."""
    world = doing(answer)

    with pytest.raises(InvalidRequest) as refused:
        submitted(world, config={"model": "gpt-4o", "temperature": 0.3, "max_tokens": 100, "durable": True, "timeout": 60})

    assert [detail.path for detail in refused.value.details] == [
        "config.model",
        "config.max_tokens",
        "config.temperature",
        "config.durable",
    ]
    assert submitted(world, config={"timeout": 60, "max_attempts": 2, "durable": False, "fallback_models": []}).max_attempts == 2


def test_it_takes_an_input_and_no_prompt() -> None:
    world = doing(answer)

    with pytest.raises(InvalidRequest) as refused:
        world.submit("Do it.", job_type="chore")

    assert [detail.path for detail in refused.value.details] == ["input"]


def test_a_type_may_need_a_greater_role() -> None:
    """Whoever has it may submit; the others are told which it is."""
    world = World(job_type=knowing(chore(answer, min_role="operator")))

    with pytest.raises(Forbidden, match="need the role operator; this key is a user"):
        submitted(world)

    assert submitted(world, caller=OLGA).user == "olga"


@pytest.mark.parametrize(("user", "role"), [(None, "operator"), ("olga", "operator"), ("alice", "user")])
def test_it_has_the_rights_of_whoever_submitted_it(user: str | None, role: str) -> None:
    """On behalf of somebody else it has a user's, because that one reads what comes of it."""

    async def work(task: TaskRun) -> Any:
        return [task.caller.user, task.caller.role.label]

    world = doing(work)
    job = submitted(world, caller=OLGA, user=user)
    world.deliver()

    kept = world.container.results.get(job.id, 1)
    assert kept is not None
    assert kept.parsed == [user or "olga", role]
