"""Many jobs are started again or deleted, and one thing goes wrong at whichever call: nothing is half done, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.failures import ProviderQuotaExhausted
from chalicelib.domain.jobs.bulk_operation import BulkAction
from chalicelib.domain.jobs.job import Status
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs.bulk_operations import BulkRequest, StartedBulk, resume_unfinished, start_bulk
from chalicelib.services.maintenance.sweeper import sweep
from tests.faults.answers import Says
from tests.faults.cloud import LONGEST, SWEEP_EVERY, SWEEP_PHASE, Cloud, Stuck
from tests.faults.invariants import broken
from tests.faults.reach import some
from tests.faults.steps import Fault, Kind
from tests.faults.twins import Port

OLGA = Caller(tenant="acme", user="olga", role=Role.OPERATOR, key_id="key_2", key_hash="hash")
JOBS = 3


class Office(Cloud):
    """A cloud with an operator: what has failed is hers to deal with, and the sweep goes on with what she began."""

    def _wire(self) -> None:
        super()._wire()
        self.world.container.job_data = Port("job_data", self.real.job_data, self.steps)  # type: ignore[assignment]
        self.world.container.bulk_operations = Port("bulk_operations", self.real.bulk_operations, self.steps)  # type: ignore[assignment]

    def at_work(self) -> str:
        unfinished = [bulk.id for bulk in self.real.bulk_operations.rows.values() if bulk.finished_at is None]
        return ", ".join(filter(None, [super().at_work(), f"bulk actions {unfinished}" if unfinished else ""]))

    async def failures(self) -> list[str]:
        """Jobs whose first run failed for good, with text and a result kept of it."""
        scripts = (Says(pieces=2, error=ProviderQuotaExhausted()), Says(pieces=2))
        ids = [await self.submit(f"failing {number}", *scripts) for number in range(JOBS)]
        await self.until(lambda: all(self.head(job_id).status is Status.FAILED for job_id in ids))
        return ids

    async def ask(self, wish: BulkRequest, *, again: bool) -> None:
        """Sent under one key, and `again` if there is no answer, as the command line does."""
        once = IdempotentRequest.of(OLGA, "POST /bulk", "key", [wish.action.value])

        def asked() -> StartedBulk:
            return start_bulk(self.world.container, OLGA, wish, once)

        await (self.request(asked) if again else self.act("api", asked))

    async def _sweep(self) -> None:
        await asyncio.sleep(SWEEP_PHASE)
        while True:
            self.background(self.act("sweep", self._sweep_all))
            await asyncio.sleep(SWEEP_EVERY)

    def _sweep_all(self) -> None:
        sweep(self.world.container)
        resume_unfinished(self.world.container)


Story = Callable[[Office], Coroutine[Any, Any, None]]
ALL_FAILED = {"status": Status.FAILED.value}


async def retry_all(office: Office) -> None:
    await office.failures()
    await office.ask(BulkRequest(action=BulkAction.RETRY, filters=ALL_FAILED), again=True)


async def retry_named(office: Office) -> None:
    await office.ask(BulkRequest(action=BulkAction.RETRY, ids=tuple(await office.failures())), again=True)


async def purge(office: Office) -> None:
    await office.failures()
    await office.ask(BulkRequest(action=BulkAction.DELETE, filters=ALL_FAILED), again=True)


async def delete_named_once(office: Office) -> None:
    """Whoever asked does not ask again, whatever they hear."""
    await office.ask(BulkRequest(action=BulkAction.DELETE, ids=tuple(await office.failures())), again=False)


def played(story: Story, faults: Sequence[Fault] = ()) -> tuple[Office, list[str]]:
    office = Office(faults)
    try:
        office.run(story)  # type: ignore[arg-type]
    except Stuck as stuck:
        return office, [f"stuck within {LONGEST / 3600:g} h: {stuck}"]
    wrong = _not_deleted(office) if story in (purge, delete_named_once) else _not_retried(office)
    return office, [*broken(office), *wrong]


def _not_retried(office: Office) -> list[str]:
    """Each has had a second run, whole, and no third; and that is what the bulk action says."""
    heads = office.real.jobs.heads.values()
    wrong = [f"{job.id[-3:]} is {job.status}, run {job.run}" for job in heads if (job.status, job.run) != (Status.COMPLETED, 2)]
    [bulk] = office.real.bulk_operations.rows.values()
    said = (bulk.matched, bulk.done, bulk.skipped, bulk.failed, bulk.not_found)
    return [*wrong, *([f"it says {said}"] if said != (JOBS, JOBS, 0, 0, 0) else [])]


def _not_deleted(office: Office) -> list[str]:
    """All or nothing of each: its head and what is kept of it. Nothing only if the wish was written down nowhere."""
    bulks, heads = list(office.real.bulk_operations.rows.values()), office.real.jobs.heads
    left = [f"{job_id[-3:]}: {rows}" for job_id in office.history.heads if (rows := office.real.job_data.rows(job_id))]
    if not bulks:
        whole = len(heads) == JOBS and not any(job.is_deleted for job in heads.values())
        return [] if whole else [f"nobody wished it, and {len(heads)} are left"]
    wrong = [f"{job_id[-3:]} is still there" for job_id in heads] + left
    [bulk] = bulks
    return [*wrong, *([f"it says {bulk.done} done of {bulk.matched}"] if (bulk.matched, bulk.done) != (JOBS, JOBS) else [])]


STORIES: tuple[Story, ...] = (retry_all, retry_named, purge, delete_named_once)


def _calls(office: Office) -> list[int]:
    """The calls of whoever carries it out, and of all that follows."""
    first = next(step for step in office.steps.trace if step.name.startswith("bulk_operations.create"))
    begun = next(step.number for step in office.steps.trace if step.actor is first.actor)
    return list(range(begun, len(office.steps.trace) + 1))


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_invariants_hold_without_faults(story: Story) -> None:
    office, problems = played(story)

    assert not problems, problems
    assert len(_calls(office)) > 10


@pytest.mark.parametrize("kind", Kind, ids=[kind.name.lower() for kind in Kind])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_invariants_hold_with_a_fault_at_any_call(story: Story, kind: Kind) -> None:
    """The operation goes on after the fault, and no job is handled twice."""
    for number in some(_calls(played(story)[0]), kind, 2):
        office, problems = played(story, [Fault(number, kind)])
        assert not problems, "\n".join([f"{story.__name__}, step {number}: {kind.value}", *problems, office.steps.printed()])
