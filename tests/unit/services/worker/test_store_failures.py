"""A worker while a store fails: it retries, loses nothing and requests no answer twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.domain.errors import Throttled
from chalicelib.domain.failures import ProviderUnavailable
from chalicelib.domain.jobs.job import Status, Usage
from chalicelib.ports import ResponseEnded
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.worker.process_messages import PartialBatchFailure, process_messages
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.time import run
from tests.kit.world import World


class AccessDenied(ClientError):
    """What IAM answers who has no right."""

    def __init__(self) -> None:
        super().__init__({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "PutItem")


SLOW = Script(deltas=[f"t{n} " for n in range(200)], every=0.05)


@pytest.mark.parametrize("after", [False, True], ids=["no effect", "effect, response lost"])
@pytest.mark.parametrize(
    ("port", "method"),
    [
        ("chunks", "append"),
        ("results", "put"),
        ("jobs", "replace"),
        ("job_specs", "get"),
        ("leases", "renew"),
        ("subscriptions", "controls"),
    ],
)
def test_a_few_refusals_of_a_store_do_not_disturb_a_running_job(port: str, method: str, after: bool) -> None:
    """The store refuses three times; the job completes in its first attempt."""
    world = World(SLOW)
    job = world.submit()
    world.watch(job)

    with refusing(getattr(world.container, port), method, 3, after=after):
        world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.attempt, ended.crashes) == (Status.COMPLETED, 1, 0)
    assert len(world.provider.requests) == 1
    assert world.log_text(job) == world.provider.sent[0] == world.assembled().text


def test_a_retry_wake_up_that_cannot_be_sent_is_sent_by_the_sweeper() -> None:
    """The job record is `retrying`, and subscribers get the frame nevertheless."""
    world = World(Script(deltas=["x"], error=ProviderUnavailable()), Script())
    job = world.submit()
    world.watch(job)
    world.container.queues.receive("normal")
    with refusing(world.container.queues, "send", 99):
        world.deliver(messages=[world.wake(job)])
    assert world.job(job).status is Status.RETRYING
    assert world.frames("c1", "retrying")

    assert world.sweep(after=120)["resent"] == 1
    world.deliver()

    assert world.job(job).status is Status.COMPLETED


@pytest.mark.parametrize(("port", "method"), [("results", "put"), ("jobs", "replace"), ("leases", "open")])
def test_a_job_whose_worker_is_refused_a_right_is_recovered_by_the_sweeper(port: str, method: str) -> None:
    """A deployment takes rights away at once, also from invocations that run the code before."""
    world = World(Script(), Script())
    job = world.submit()
    with refusing(getattr(world.container, port), method, 99, AccessDenied), pytest.raises((AccessDenied, PartialBatchFailure)):
        world.deliver()

    assert not world.job(job).status.is_terminal
    world.sweep(after=120)
    world.sweep(after=600)
    world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_malformed_usage_from_the_provider_fails_only_the_attempt() -> None:
    """An error while an answer is evaluated must not leave the job without a worker."""
    world = World(Script(end=ResponseEnded(Usage(input="ten", output=3), "gpt-4o-mini")), Script())  # type: ignore[arg-type]
    job = world.submit()

    world.deliver()
    assert world.job(job).reason == "internal_error"
    world.clock.advance(5)
    world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_a_stream_cancelled_by_its_library_is_a_lost_connection() -> None:
    """A `CancelledError` without a cancel request must not cancel the job."""
    world = World(Script(deltas=["x"], error=asyncio.CancelledError()), Script())  # type: ignore[arg-type]
    job = world.submit()

    world.deliver()

    assert world.job(job).reason == "provider_connection_lost"


def test_the_job_record_of_a_wake_up_is_read_consistently() -> None:
    """A stale read could drop the wake-up of a new job."""
    world = World()
    job = world.submit()
    asked: list[bool] = []
    get_many = world.container.jobs.get_many

    def note(ids: Any, *, consistent: bool = False) -> Any:
        asked.append(consistent)
        return get_many(ids)

    world.container.jobs.get_many = note  # type: ignore[method-assign]
    world.deliver()

    assert asked == [True]
    assert world.job(job).status is Status.COMPLETED


def test_an_error_in_a_control_check_does_not_stop_later_checks() -> None:
    """The check reads the cancel flags and `subscribers_version` of the worker's jobs."""
    world = World(SLOW)
    job = world.submit()

    async def cancel() -> None:
        await asyncio.sleep(3)
        cancel_job(world.container, world.job(job))

    async def work() -> None:
        await asyncio.gather(process_messages(world.container, "normal", world.container.queues.receive("normal")), cancel())

    with refusing(world.container.subscriptions, "controls", 2, ZeroDivisionError):
        run(world.loop, work())

    assert world.job(job).status is Status.CANCELLED


def test_an_error_in_a_lease_renewal_does_not_stop_later_renewals() -> None:
    """Otherwise the sweeper would take a living worker for dead."""
    world = World(Script(deltas=["x"] * 400, every=0.1))
    job = world.submit()
    swept: list[Any] = []

    async def sweeps() -> None:
        for _ in range(35):
            await asyncio.sleep(1)
            swept.append(world.sweep())

    async def work() -> None:
        await asyncio.gather(process_messages(world.container, "normal", world.container.queues.receive("normal")), sweeps())

    with refusing(world.container.leases, "renew", 3, ZeroDivisionError):
        run(world.loop, work())

    assert not any(done["lease_reaped"] for done in swept)
    assert world.job(job).attempt == 1


def test_a_message_whose_worker_is_fenced_during_the_claim_comes_again() -> None:
    """Its job may still be queued, so the message must not be acknowledged."""
    world = World(SLOW, SLOW)
    first, second = world.submit("a"), world.submit("b")
    get = world.container.job_specs.get

    def fence(job_id: str) -> Any:
        for lease in list(world.container.leases.rows.values()):
            world.container.leases.fence(lease)
        return get(job_id)

    world.container.job_specs.get = fence  # type: ignore[method-assign]
    with pytest.raises(PartialBatchFailure):
        world.deliver()

    assert len(world.container.queues.messages["normal"]) == 2
    assert {world.job(job).status for job in (first, second)} == {Status.PROCESSING}


def test_a_subscription_during_the_final_flush_leaves_no_task_running() -> None:
    """A slow socket keeps the broadcaster busy for up to eight seconds after the end."""
    world = World(Script())
    job = world.submit()
    world.watch(job, "slow")
    world.container.sockets.busy["slow"] = 10**6

    async def subscribe_late() -> None:
        while world.job(job).status is not Status.COMPLETED:
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        world.container.sockets.busy["late"] = 10**6
        world.watch(job, "late")

    async def work() -> None:
        await asyncio.gather(process_messages(world.container, "normal", world.container.queues.receive("normal")), subscribe_late())

    run(world.loop, work())  # asserts that no task is left

    assert world.job(job).status is Status.COMPLETED


def test_a_subscriber_with_a_revoked_key_gets_no_frame() -> None:
    """The key is checked before the first frame."""
    world = World(readers_of=lambda _job, _hashes: set())
    job = world.submit()
    world.watch(job)

    world.deliver()

    assert not world.frames("c1")
    assert world.job(job).status is Status.COMPLETED


def test_a_socket_is_closed_when_its_key_cannot_be_checked_for_a_minute() -> None:
    """The job itself completes."""
    asked: list[float] = []
    world = World(Script(deltas=["x "] * 1000, every=0.1), readers_of=lambda _job, key_hashes: set(key_hashes) if lookup() else set())

    def lookup() -> bool:
        asked.append(world.loop.moment)
        if len(asked) > 1:
            raise Throttled
        return True

    job = world.submit()
    world.watch(job)
    world.deliver()

    frames = world.frames("c1", "tokens")
    assert frames
    assert not world.frames("c1", "job_completed")
    assert world.container.sockets.closed == ["c1"]
    assert world.job(job).status is Status.COMPLETED
