"""Batches of a few rows, and one thing goes wrong at whichever call: every row has its job once, and what is counted is what there is."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from chalicelib.consumers.count_jobs import count_job_changes
from chalicelib.domain.batches.batch import Batch, BatchStatus
from chalicelib.domain.batches.counters import BatchCounts, counter_key, counter_partition
from chalicelib.domain.batches.options import BatchOptions
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import BatchNotRetryable
from chalicelib.domain.failures import RequestRefused
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.queues.lanes import TASKS
from chalicelib.services.batches import manage_batch
from chalicelib.services.batches.advance_batch import advance_batch, wake_stalled_batches
from chalicelib.services.batches.submit_batch import prepare_batch, submit_batch
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs.bulk_operations import resume_unfinished
from chalicelib.services.maintenance.sweeper import sweep
from tests.faults.answers import Says
from tests.faults.cloud import LANE, LONGEST, SWEEP_EVERY, SWEEP_PHASE, Cloud, Stuck
from tests.faults.invariants import broken
from tests.faults.processes import Change
from tests.faults.reach import some
from tests.faults.steps import Fault, Kind
from tests.faults.twins import Port
from tests.kit.world import ALICE

ROWS = 5
TASK_MS = 90_000
FAILS = Says(pieces=1, error=RequestRefused("No."))


class Hall(Cloud):
    """A cloud with what releases rows, counts them, and carries out what is asked for them."""

    def _wire(self) -> None:
        super()._wire()
        for name in ("batches", "batch_rows", "counters", "bulk_operations"):
            setattr(self.world.container, name, Port(name, getattr(self.real, name), self.steps))
        self._counted: asyncio.Queue[Change] = asyncio.Queue()
        self._counting = False
        self._tending = 0

    def _changed(self, before: Any, new: Any) -> None:
        super()._changed(before, new)
        self._counted.put_nowait((new.id, before, new))

    def start(self) -> None:
        super().start()
        self.background(self._count())
        self.background(self._tasks())

    def at_work(self) -> str:
        busy = {
            "batches": sorted(self.real.batches.open),
            "bulk actions": [bulk.id for bulk in self.real.bulk_operations.rows.values() if bulk.finished_at is None],
            "tasks": len(self.real.queues.messages[TASKS]) + self._tending,
            "counting": self._counted.qsize() + self._counting,
        }
        return ", ".join(filter(None, [super().at_work(), *(f"{name} {what}" for name, what in busy.items() if what)]))

    async def _count(self) -> None:
        """Hand the changes on, as many together as there are, until they were counted."""
        while True:
            changes = [await self._counted.get()]
            self._counting = True
            await asyncio.sleep(0.5)
            while not self._counted.empty():
                changes.append(self._counted.get_nowait())
            while isinstance(await self.act("count", count_job_changes, self.world.container, changes), BaseException):
                await asyncio.sleep(1.0)
            self._counting = False

    async def _tasks(self) -> None:
        while True:
            for message in self.real.queues.receive(TASKS):
                self.background(self._task_of(message.body, message.receipt))
            await asyncio.sleep(0.2)

    async def _task_of(self, body: str, receipt: str) -> None:
        """A message is deleted only if its function came to its end."""
        asked, self._tending = json.loads(body), self._tending + 1
        until = self.world.clock.now() + TASK_MS
        answer = await self.act("tasks", advance_batch, self.world.container, asked["tenant"], asked["batch_id"], until)
        self._tending -= 1
        if not isinstance(answer, BaseException):
            self.real.queues.acknowledge(TASKS, [receipt])

    async def _sweep(self) -> None:
        await asyncio.sleep(SWEEP_PHASE)
        while True:
            self.background(self.act("sweep", self._sweep_all))
            await asyncio.sleep(SWEEP_EVERY)

    def _sweep_all(self) -> None:
        sweep(self.world.container)
        wake_stalled_batches(self.world.container)
        resume_unfinished(self.world.container)

    # ---- what people do

    async def submit_rows(self, *scripts: Sequence[Says], **terms: Any) -> str:
        """A batch of rows, each with its script; sent under one key until there is an answer."""
        rows = [Row(number=number, prompt=f"row {number}") for number in range(len(scripts))]
        self.provider.scripts |= {f"row {number}": list(script) for number, script in enumerate(scripts)}
        once = IdempotentRequest.of(ALICE, "POST /batches", "key", "rows")

        def ask() -> str:
            clerk = self.world.container
            prepared = prepare_batch(clerk, ALICE, BatchOptions(**terms), Submission(priority=LANE), rows)
            return submit_batch(clerk, ALICE, prepared, once).batch.id

        return str(await self.request(ask))

    async def cancel_batch(self, batch_id: str) -> None:
        def ask() -> None:
            clerk = self.world.container
            manage_batch.cancel_batch(clerk, manage_batch.get_batch(clerk.batches, ALICE, batch_id))

        await self.request(ask)

    async def retry_batch(self, batch_id: str, *, cancelled: bool = False) -> None:
        once = IdempotentRequest.of(ALICE, "retry-failed", "key", batch_id)

        def ask() -> None:
            clerk = self.world.container
            manage_batch.retry_failed(clerk, manage_batch.get_batch(clerk.batches, ALICE, batch_id), once, cancelled=cancelled)

        await self.request(ask)

    def batch(self, batch_id: str) -> Batch:
        return self.real.batches.rows[batch_id]

    def heads(self, batch_id: str) -> dict[int, Any]:
        found = {number: self.real.jobs.heads.get(job_id_of_row(batch_id, number)) for number in range(self.batch(batch_id).total)}
        return {number: job for number, job in found.items() if job is not None}


Story = Callable[[Hall], Coroutine[Any, Any, None]]


async def released(hall: Hall) -> None:
    await hall.submit_rows(*[[Says(pieces=1)]] * ROWS, batch_size=2)


async def few_at_once(hall: Hall) -> None:
    await hall.submit_rows(*[[Says(pieces=1)]] * ROWS, parallel_limit=2)


async def apart(hall: Hall) -> None:
    await hall.submit_rows(*[[Says(pieces=1)]] * ROWS, batch_size=2, delay=20)


async def cancelled(hall: Hall) -> None:
    batch_id = await hall.submit_rows(*[[Says(pieces=4)]] * ROWS, batch_size=2)
    await hall.until(lambda: bool(hall.heads(batch_id)))
    await hall.cancel_batch(batch_id)


async def retried(hall: Hall) -> None:
    batch_id = await hall.submit_rows([FAILS, Says(pieces=1)], [Says(pieces=1)], [FAILS, Says(pieces=1)])
    await hall.until(lambda: hall.batch(batch_id).finished_at is not None)
    await hall.retry_batch(batch_id)


async def not_tolerated(hall: Hall) -> None:
    await hall.submit_rows([FAILS], [FAILS], *[[Says(pieces=1)]] * 3, parallel_limit=2, failure_tolerance=0.2)


EXPECTED: dict[Story, Callable[[Counter[str]], bool]] = {
    released: lambda ends: ends == {"completed": ROWS},
    few_at_once: lambda ends: ends == {"completed": ROWS},
    apart: lambda ends: ends == {"completed": ROWS},
    cancelled: lambda ends: set(ends) <= {"completed", "cancelled"},
    retried: lambda ends: ends == {"completed": 3},
    not_tolerated: lambda ends: ends["failed"] == 2,
}
STATUSES = {
    released: {BatchStatus.COMPLETED},
    few_at_once: {BatchStatus.COMPLETED},
    apart: {BatchStatus.COMPLETED},
    cancelled: {BatchStatus.CANCELLED, BatchStatus.COMPLETED},  # it may have been over when the request came through
    retried: {BatchStatus.COMPLETED},
    not_tolerated: {BatchStatus.FAILED, BatchStatus.COMPLETED_WITH_FAILURES},
}


def played(story: Story, faults: Sequence[Fault] = ()) -> tuple[Hall, list[str]]:
    hall = Hall(faults)
    try:
        hall.run(story)  # type: ignore[arg-type]
    except Stuck as stuck:
        return hall, [f"stuck within {LONGEST / 3600:g} h: {stuck}"]
    return hall, [*broken(hall), *_wrong(hall, story)]


def _wrong(hall: Hall, story: Story) -> list[str]:
    [batch] = hall.real.batches.rows.values()
    heads = hall.heads(batch.id)
    ends = Counter(job.status.value for job in heads.values())
    found = [f"{len(heads)} of {len(hall.real.jobs.heads)} jobs are rows"] if len(heads) != len(hall.real.jobs.heads) else []
    found += [] if EXPECTED[story](ends) else [f"the rows ended as {dict(ends)}"]
    found += [] if batch.status in STATUSES[story] else [f"the batch is {batch.status}"]
    found += [] if batch.finished_at is not None and batch.notified else ["the batch is not over"]
    found += [f"{job.id[-3:]} has had {job.run} runs" for job in heads.values() if job.run > (2 if story is retried else 1)]
    found += _miscounted(hall, batch, heads)
    hall_aside = hall.real.queues.aside["stream"]
    return found + ([f"set aside: {hall_aside}"] if hall_aside else [])


def _miscounted(hall: Hall, batch: Batch, heads: dict[int, Any]) -> list[str]:
    """Counters are what the heads say, to the last nano-dollar."""
    counts = BatchCounts.of(hall.real.counters.counters.get(counter_key(batch.id), {}))
    status = Counter(job.status for job in heads.values())
    true = {
        "known": len(heads),
        "completed": status[Status.COMPLETED],
        "failed": status[Status.FAILED],
        "cancelled": status[Status.CANCELLED],
        "queued": 0,
        "processing": 0,
        "waiting": 0,
        "cost": sum(job.cost or 0 for job in heads.values()),
        "output": sum(job.usage.output for job in heads.values() if job.usage),
    }
    said = {name: getattr(counts, name) for name in true}
    wrong = [f"counted {said}, there is {true}"] if said != true else []
    failed = {number for number, job in heads.items() if job.status is Status.FAILED}
    listed = {
        int(name[1:])
        for (pk, sk), numbers in hall.real.counters.counters.items()
        if pk == counter_partition(batch.id) and sk != "counts"
        for name, n in numbers.items()
        if name.startswith("r") and n
    }
    return wrong + ([f"{listed} are listed as failed, {failed} are"] if listed != failed else [])


@pytest.mark.parametrize("story", EXPECTED, ids=lambda story: story.__name__)
def test_invariants_hold_without_faults(story: Story) -> None:
    hall, problems = played(story)

    assert not problems, "\n".join([*problems, hall.steps.printed()])
    assert len(hall.steps.trace) > 40


def _calls(hall: Hall) -> list[int]:
    """The calls of whoever accepts, releases, counts and steers; those of workers and sweeps have tests of their own."""
    return [step.number for step in hall.steps.trace if step.actor.role in ("api", "tasks", "count")]


@pytest.mark.parametrize("kind", Kind, ids=[kind.name.lower() for kind in Kind])
@pytest.mark.parametrize("story", EXPECTED, ids=lambda story: story.__name__)
def test_invariants_hold_with_a_fault_at_any_call(story: Story, kind: Kind) -> None:
    """The process dies, freezes beyond its time and resumes, or loses a response."""
    for number in some(_calls(played(story)[0]), kind, 3):
        hall, problems = played(story, [Fault(number, kind)])
        assert not problems, "\n".join([f"{story.__name__}, step {number}: {kind.value}", *problems, hall.steps.printed()])


def test_replaying_the_change_stream_changes_no_batch_count() -> None:
    hall = Hall()

    async def story(_: Cloud) -> None:
        await retried(hall)
        await hall.rest()
        for change in hall.changes:
            hall._counted.put_nowait(change)

    hall.run(story)

    assert not _wrong(hall, retried)


def test_batch_ends_without_any_change_record() -> None:
    """The batch re-checks the job records of its rows instead."""
    hall = Hall()
    hall._changed = super(Hall, hall)._changed  # type: ignore[method-assign]

    hall.run(released)  # type: ignore[arg-type]

    assert not _wrong(hall, released)


def test_cancelled_batch_completes_after_a_retry() -> None:
    hall = Hall()

    async def story(_: Cloud) -> None:
        await cancelled(hall)
        [batch_id] = hall.real.batches.rows
        while True:
            try:
                await hall.retry_batch(batch_id, cancelled=True)
            except BatchNotRetryable:
                await asyncio.sleep(10)
            else:
                return

    hall.run(story)

    [batch] = hall.real.batches.rows.values()
    assert (batch.status, Counter(job.status for job in hall.heads(batch.id).values())) == (
        BatchStatus.COMPLETED,
        {Status.COMPLETED: ROWS},
    )
    assert not _miscounted(hall, batch, hall.heads(batch.id))
