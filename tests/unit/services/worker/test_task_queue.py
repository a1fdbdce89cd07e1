"""Tasks have a queue and a worker of their own, apart from the streams of the lanes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chalicelib.domain.batches.options import BatchOptions
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import InvalidRequest, QueueFull
from chalicelib.domain.jobs.edits import JobEdit
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import JobType, Limits
from chalicelib.domain.queues.lanes import JOB_QUEUES
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.services.batches.advance_batch import advance_batch
from chalicelib.services.batches.submit_batch import base_submission, prepare_batch, submit_batch
from chalicelib.services.jobs.edit_job import edit_job
from chalicelib.services.jobs.retry_job import retry_job
from chalicelib.services.operations.redrive_dead_letters import redrive
from chalicelib.services.worker.process_messages import PartialBatchFailure, process_messages
from chalicelib.services.worker.run_task import TaskRun
from chalicelib.settings import Settings
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.task_types import chore, chore_world, with_job_types
from tests.kit.world import ALICE, World, kill


async def answer(_task: TaskRun) -> Any:
    return "done"


def submitted(world: World, **fields: Any) -> Job:
    return world.submit(None, input=1, job_type="chore", **fields)


def queued(world: World) -> dict[str, list[str]]:
    """The ids of the jobs whose wake-ups are in the queues, by queue."""
    messages = {queue: world.container.queues.messages[queue] for queue in JOB_QUEUES}
    return {queue: [WakeUp.from_json(message.body).job_id for message in held] for queue, held in messages.items() if held}


def misdirect(world: World, job: Job, lane: str) -> None:
    """Move a task's wake-up to a lane, where an older version sends it."""
    world.container.queues.messages["work"].clear()
    world.container.queues.send(lane, WakeUp(job.id, job.generation), job.tenant)


# ---- what sends wake-ups follows one rule


@pytest.mark.parametrize("lane", ["urgent", "low"])
def test_a_submitted_task_is_sent_to_the_queue_of_tasks(lane: str) -> None:
    world = chore_world(answer)
    task, asking = submitted(world, priority=lane), world.submit(priority=lane)

    assert queued(world) == {"work": [task.id], lane: [asking.id]}


def test_rows_of_a_batch_of_tasks_are_sent_to_the_queue_of_tasks() -> None:
    """Whatever lane a row chooses."""
    world = chore_world(answer)
    ctx, options = world.container, BatchOptions(type="chore")
    rows = [Row(number=number, prompt=None, input=number, priority=lane) for number, lane in enumerate((None, "urgent"))]
    batch = submit_batch(ctx, ALICE, prepare_batch(ctx, ALICE, options, base_submission(options), rows), None).batch

    advance_batch(ctx, batch.tenant, batch.id, world.clock.now() + 10_000)

    assert len(queued(world)["work"]) == 2
    assert {job.lane for job in ctx.jobs.records.values()} == {"low", "urgent"}


def test_a_lost_wake_up_of_a_task_is_sent_again_to_the_queue_of_tasks() -> None:
    world = chore_world(answer)
    job = submitted(world)
    world.container.queues.messages["work"].clear()

    assert world.sweep(after=130)["resent"] == 1

    assert queued(world) == {"work": [job.id]}


def test_a_task_of_a_dead_worker_and_its_manual_retry_go_to_the_queue_of_tasks() -> None:
    async def slow(_task: TaskRun) -> Any:
        await asyncio.sleep(60)

    world = chore_world(slow)
    job = submitted(world, config={"timeout": 5, "max_attempts": 1})
    kill(world, 2.0)
    world.sweep(after=40)
    assert (world.job(job).generation, set(queued(world)), world.container.queues.sent[-1][0]) == (2, {"work"}, "work")
    world.deliver()
    assert world.job(job).status is Status.FAILED
    world.container.queues.messages["work"].clear()

    retry_job(world.container, world.job(job))

    assert queued(world) == {"work": [job.id]}


def test_a_moved_task_stays_in_the_queue_of_tasks() -> None:
    world = chore_world(answer)
    job = submitted(world)

    edited = edit_job(world.container, job, JobEdit(lane="low"))

    assert (edited.lane, edited.generation, queued(world)) == ("low", 1, {"work": [job.id]})


@pytest.mark.parametrize("dead_in", ["normal", "work"])
def test_a_dead_letter_of_a_task_is_redriven_into_the_queue_of_tasks(dead_in: str) -> None:
    world = chore_world(answer)
    job = submitted(world)
    world.container.queues.messages["work"].clear()
    world.container.queues.give_up(dead_in, WakeUp(job.id, 1).to_json())

    done = redrive(world.container, [dead_in])

    assert (done.queues[dead_in]["redriven"], queued(world)) == (1, {"work": [job.id]})


def test_a_full_queue_of_tasks_refuses_tasks_and_no_other_jobs() -> None:
    """A full lane refuses no task, either."""
    world = World(job_type=with_job_types(chore(answer)), settings=Settings(max_lane_depth=2))
    for _ in range(2):
        submitted(world)

    with pytest.raises(QueueFull, match="The queue of tasks holds 2 messages and is full"):
        submitted(world)
    for _ in range(2):
        world.submit()
    with pytest.raises(QueueFull, match="The normal lane holds 2 messages and is full"):
        world.submit()
    world.container.queues.messages["work"].clear()
    submitted(world)


# ---- the sweeper looks at each queue by itself


def test_a_deep_lane_does_not_delay_the_lost_wake_up_of_a_task() -> None:
    """The lane's watermark says nothing about the queue of tasks."""
    world = World(Script(deltas=["x"] * 3_000, every=0.1), job_type=with_job_types(chore(answer)))
    world.submit("running")
    task = submitted(world)
    world.container.queues.messages["work"].clear()
    world.clock.advance(1)
    waiting = [world.submit(str(number)) for number in range(20)]

    async def scenario() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "normal", world.container.queues.receive("normal", 1)))
        await asyncio.sleep(130)
        world.container.queues.sent.clear()
        world.sweep()
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    world.loop.run_until_complete(scenario())

    assert [(queue, wake_up.job_id) for queue, wake_up in world.container.queues.sent] == [("work", task.id)]
    assert {world.job(job).status for job in waiting} == {Status.QUEUED}


def test_a_deep_queue_of_tasks_gets_no_duplicate_wake_ups() -> None:
    """The lease of its worker carries the watermark of this queue."""

    async def slow(_task: TaskRun) -> Any:
        await asyncio.sleep(200)
        return "done"

    world = chore_world(slow)
    submitted(world)
    world.clock.advance(1)
    tasks = [submitted(world) for _ in range(20)]

    async def scenario() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "work", world.container.queues.receive("work", 1)))
        await asyncio.sleep(130)
        world.container.queues.sent.clear()
        world.sweep()
        assert [lease.lane for lease in world.container.leases.rows.values()] == ["work"]
        await worker

    world.loop.run_until_complete(scenario())

    assert world.container.queues.sent == []
    assert {world.job(job).status for job in tasks} == {Status.QUEUED}


# ---- two versions side by side


@pytest.mark.parametrize("lane", ["urgent", "high", "normal", "low"])
def test_the_worker_of_a_lane_passes_a_task_on_and_runs_its_neighbours(lane: str) -> None:
    world = World(Script(deltas=["Hello"]), job_type=with_job_types(chore(answer)))
    task, neighbour = submitted(world, priority=lane), world.submit(priority=lane)
    misdirect(world, task, lane)

    world.deliver(lane)
    after = world.job(task)
    world.deliver("work")

    assert (after.status, after.generation, after.attempt) == (Status.QUEUED, 1, 0)
    assert [(world.job(job).status, world.job(job).attempt) for job in (task, neighbour)] == [(Status.COMPLETED, 1)] * 2


def test_a_task_that_cannot_be_passed_on_comes_again() -> None:
    """Its message is not acknowledged; that of its neighbour is."""
    world = World(Script(deltas=["Hello"]), job_type=with_job_types(chore(answer)))
    task = submitted(world)
    misdirect(world, task, "normal")
    neighbour = world.submit()

    with refusing(world.container.queues, "send", 1), pytest.raises(PartialBatchFailure):
        world.deliver("normal")
    left = queued(world)
    world.clock.advance(1_000)
    world.deliver("normal")
    world.deliver("work")

    assert left == {"normal": [task.id]}
    assert [(world.job(job).status, world.job(job).attempt) for job in (task, neighbour)] == [(Status.COMPLETED, 1)] * 2


def test_a_wake_up_that_is_passed_on_twice_runs_the_task_once() -> None:
    world = chore_world(answer)
    task = submitted(world)

    world.deliver("normal", [world.wake(task), world.wake(task)])
    world.deliver("work")

    assert len(world.container.queues.sent) == 3
    assert (world.job(task).status, world.job(task).attempt) == (Status.COMPLETED, 1)


def test_a_late_wake_up_of_a_task_in_a_lane_is_dropped() -> None:
    world = chore_world(answer)
    task = submitted(world)
    world.deliver()

    world.deliver("normal", [world.wake(task)])

    assert len(world.container.queues.sent) == 1
    assert world.job(task).attempt == 1


def test_the_worker_of_tasks_passes_a_job_with_a_model_on_to_its_lane() -> None:
    """It may not read the OpenAI key."""
    world = World(Script(deltas=["Hello"]))
    job = world.submit(priority="high")
    world.container.queues.messages["high"].clear()

    world.deliver("work", [world.wake(job)])
    asked = len(world.provider.requests)
    world.deliver("high")

    assert (asked, world.job(job).status) == (0, Status.COMPLETED)


# ---- the record says whether a job is a task


def test_a_job_that_asks_a_model_may_not_name_that_of_tasks() -> None:
    """It would go to a worker that has no OpenAI key."""
    with pytest.raises(InvalidRequest) as refused:
        World().submit(config={"model": "none"})

    assert [(detail.path, detail.message) for detail in refused.value.details] == [("config.model", "must name a model; `none` is none")]


@pytest.mark.parametrize("was_task", [True, False])
def test_a_job_whose_type_has_become_another_kind_fails_and_asks_nothing(was_task: bool) -> None:
    """No worker runs what it has no rights for."""
    task_type = chore(answer)
    model_type = JobType(name="chore", title="C", description="D", instructions="Answer.", input_schema={})
    before, after = (task_type, model_type) if was_task else (model_type, task_type)
    world = World(job_type=with_job_types(before))
    job = submitted(world)
    vars(world.container).update(job_type=with_job_types(after))

    world.deliver()

    ended = world.job(job)
    assert ended.error is not None
    assert (ended.status, ended.error.code, world.provider.requests) == (Status.FAILED, "request_invalid", [])
    assert "has changed since" in ended.error.message


# ---- one job in an environment


def test_a_task_runs_alone_so_that_its_crashes_count_for_itself() -> None:
    async def slow(_task: TaskRun) -> Any:
        await asyncio.sleep(60)

    world = chore_world(slow)
    first, second = submitted(world), submitted(world)

    kill(world, 2.0)
    alone = world.job(first).run_alone
    world.sweep(after=40)

    assert alone
    assert [(world.job(job).crashes, world.job(job).isolated_crashes) for job in (first, second)] == [(1, 1), (0, 0)]


def test_a_delayed_and_a_held_task_are_woken_in_the_queue_of_tasks() -> None:
    world = chore_world(answer, limits=Limits(per_minute=1))
    first, delayed = submitted(world), submitted(world, run_at=world.clock.now() + 5_000)
    world.deliver()
    world.clock.advance(5)

    world.deliver()

    assert (world.job(first).status, world.job(delayed).status) == (Status.COMPLETED, Status.HELD)
    world.clock.advance(70)
    world.deliver()
    assert [queue for queue, _ in world.container.queues.sent] == ["work", "work", "work"]
