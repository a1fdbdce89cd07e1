"""What a worker does when a store does not answer: it is patient, loses nothing, and asks nobody twice for what was paid."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

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

SLOW = Script(deltas=[f"t{n} " for n in range(200)], every=0.05)


@pytest.mark.parametrize("after", [False, True], ids=["no effect", "effect, answer lost"])
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
def test_one_refusal_is_not_noticed(port: str, method: str, after: bool) -> None:
    """Each store refuses three times in the middle of a job: the job completes as its first attempt, asked for once."""
    world = World(SLOW)
    job = world.submit()
    world.watch(job)

    with refusing(getattr(world.container, port), method, 3, after=after):
        world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.attempt, ended.crashes) == (Status.COMPLETED, 1, 0)
    assert len(world.provider.requests) == 1
    assert world.log_text(job) == world.provider.sent[0] == world.assembled().text


def test_a_wake_up_that_cannot_be_sent_is_sent_by_the_sweep() -> None:
    """The record says `retrying` and when; watchers are told all the same."""
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


def test_a_provider_that_counts_in_words_does_not_strand_the_job() -> None:
    """Whatever breaks while an answer is judged is a failed attempt."""
    world = World(Script(end=ResponseEnded(Usage(input="ten", output=3), "gpt-4o-mini")), Script())  # type: ignore[arg-type]
    job = world.submit()

    world.deliver()
    assert world.job(job).reason == "internal_error"
    world.clock.advance(5)
    world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_a_stream_that_is_cancelled_from_below_is_a_lost_connection() -> None:
    """A library that gives up cancels its own task; nobody asked for the job to be cancelled."""
    world = World(Script(deltas=["x"], error=asyncio.CancelledError()), Script())  # type: ignore[arg-type]
    job = world.submit()

    world.deliver()

    assert world.job(job).reason == "provider_connection_lost"


def test_a_wake_up_whose_record_is_read_late_is_not_lost() -> None:
    """The read that decides whether a message is dropped is consistent."""
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


def test_a_look_that_breaks_is_looked_again() -> None:
    """Not even a fault of ours stops the bells and the cancel flags of a batch."""
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


def test_a_renewal_that_breaks_is_renewed_again() -> None:
    """A living worker is not taken for dead because of one answer."""
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


def test_a_message_whose_claim_was_cut_off_comes_again() -> None:
    """Fenced while the claim is under way: the message is not acknowledged, because its job may still be queued."""
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


def test_one_who_comes_during_the_farewell_outlives_nothing() -> None:
    """A slow socket is given eight seconds at the end; whoever subscribes meanwhile is told by the handler, not by this worker."""
    world = World(Script())
    job = world.submit()
    world.watch(job, "slow")
    world.container.sockets.busy["slow"] = 10**6

    async def come() -> None:
        while world.job(job).status is not Status.COMPLETED:
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        world.container.sockets.busy["late"] = 10**6
        world.watch(job, "late")

    async def work() -> None:
        await asyncio.gather(process_messages(world.container, "normal", world.container.queues.receive("normal")), come())

    run(world.loop, work())  # which asserts that no task is left

    assert world.job(job).status is Status.COMPLETED


def test_a_revoked_key_gets_nothing_of_a_short_job() -> None:
    """A standing subscription is looked at before its first frame."""
    world = World(may_stream=lambda _hash, _job: False)
    job = world.submit()
    world.watch(job)

    world.deliver()

    assert not world.frames("c1")
    assert world.job(job).status is Status.COMPLETED


def test_keys_that_cannot_be_looked_up_for_a_minute_are_turned_away() -> None:
    """In doubt nobody is told any more; the job itself does not notice."""
    asked: list[float] = []
    world = World(Script(deltas=["x "] * 1000, every=0.1), may_stream=lambda _hash, _job: lookup())

    def lookup() -> bool:
        asked.append(world.loop.moment)
        if len(asked) > 1:
            raise Throttled
        return True

    job = world.submit()
    world.watch(job)
    world.deliver()

    told = world.frames("c1", "tokens")
    assert told
    assert not world.frames("c1", "job_completed")
    assert world.container.sockets.closed == ["c1"]
    assert world.job(job).status is Status.COMPLETED
