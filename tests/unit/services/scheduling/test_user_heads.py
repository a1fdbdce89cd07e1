"""Reading the first jobs of a line by user: bounded, and each user has its turn."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from chalicelib.domain.jobs.index_keys import place_in_line
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.services.scheduling.user_heads import FEW, MAX_READS, TURN_JOBS, UserHeads
from tests.kit.jobs import job
from tests.kit.records import new_id

NOW = 1_763_800_000_000
NUMBERS = itertools.count(1)


def held(user: str, lane: str = "normal") -> HeldJob:
    number = next(NUMBERS)
    record = job(id=new_id(NOW + number), user=user, lane=lane, queued_at=NOW + number, line_by_user=True)
    return HeldJob(
        job_id=record.id,
        generation=1,
        tenant=record.tenant,
        user=user,
        type=record.type,
        lane=lane,
        model=record.model,
        queued_at=record.queued_at,
        tokens=0,
        crashes=0,
        place=place_in_line(record),
        by_user=True,
    )


class Index:
    """A line, and how often it was read."""

    def __init__(self, jobs: Iterable[HeldJob]) -> None:
        self.jobs = sorted(jobs, key=lambda one: one.place)
        self.reads = 0

    def held(self, cause: str, tenant: str, limit: int, after: str | None = None, *, by_user: bool = False) -> list[HeldJob]:
        assert by_user
        self.reads += 1
        return [one for one in self.jobs if after is None or one.place > after][:limit]


class Reader:
    """A loop that reads the line and releases jobs of it, which then leave it."""

    def __init__(self, *jobs: HeldJob, turn: str | None = None) -> None:
        self.index, self.heads, self.now = Index(jobs), UserHeads(turn), NOW
        self.most_reads = 0

    def read(self) -> list[HeldJob]:
        ctx: Any = SimpleNamespace(lines=self.index)
        before = self.index.reads
        self.heads.read(ctx, "rate:m", "acme", self.now)
        self.most_reads = max(self.most_reads, self.index.reads - before)
        return self.heads.jobs

    def release(self, count: int) -> list[HeldJob]:
        """Release jobs in the order in which they are offered, as many in each round."""
        chosen = self.heads.jobs[:count]
        for one in chosen:
            self.heads.release(one, self.now)
            self.index.jobs.remove(one)
        return chosen

    def round(self, count: int) -> list[HeldJob]:
        self.now += 500
        if self.heads.is_stale(self.now):
            self.read()
        return self.release(count)


def test_a_user_with_five_thousand_jobs_hides_nobody_and_costs_two_requests() -> None:
    reader = Reader(*(held("busy") for _ in range(5_000)), held("ann"), held("bob", "low"))

    assert {one.user for one in reader.read()} == {"busy", "ann", "bob"}
    assert reader.most_reads <= 2


def test_the_first_jobs_of_each_lane_of_each_user_are_read() -> None:
    jobs = [held(user, lane) for user in ("a", "b", "c") for lane in ("urgent", "normal", "low") for _ in range(100)]
    found = Counter((one.user, one.lane) for one in Reader(*jobs).read())

    assert set(found) == {(user, lane) for user in ("a", "b", "c") for lane in ("urgent", "normal", "low")}
    assert min(found.values()) >= FEW


def test_of_hundred_thousand_users_a_round_reads_as_much_as_of_a_few_hundred() -> None:
    reader = Reader(*(held(f"user {number}") for number in range(100_000)))

    rounds = [reader.round(25) for _ in range(60)]

    assert reader.most_reads <= MAX_READS
    assert [len(chosen) for chosen in rounds] == [25] * 60
    assert len({one.user for chosen in rounds for one in chosen}) == 25 * 60


@pytest.mark.parametrize("jobs", [1, 3, 40])
def test_if_not_all_users_can_be_read_each_has_its_turn_before_any_has_a_second_one(jobs: int) -> None:
    """Also the last one, and one that joins late has to wait for one turn of each at most."""
    users = 900 if jobs == 1 else 600 if jobs == 3 else 60
    reader = Reader(*(held(f"user {number}") for number in range(users) for _ in range(jobs)))
    served: Counter[str] = Counter()
    for _ in range(10 * users):
        for one in reader.round(5):
            served[one.user] += 1
        if len(served) == users:
            break

    assert len(served) == users
    assert max(served.values()) <= 2 * TURN_JOBS


def test_all_jobs_of_many_users_are_released_in_the_end() -> None:
    jobs = [held(f"user {number % 700}") for number in range(2_000)]
    reader = Reader(*jobs)
    released = [one for _ in range(2_000) for one in reader.round(25)]

    assert sorted(one.job_id for one in released) == sorted(one.job_id for one in jobs)
    reader.now += 20_000
    reader.read()
    assert reader.heads.is_empty


def test_the_next_loop_goes_on_with_the_users_whose_turn_it_is() -> None:
    """A loop lives for a hundred seconds: without that the same users would always be the first."""
    first = Reader(*(held(f"user {number}") for number in range(300) for _ in range(40)))
    served_first = {one.user for one in first.read()}
    for _ in range(20):
        first.round(5)
    assert first.heads.turn is not None
    next_one = Reader(*first.index.jobs, turn=first.heads.turn)

    served_next = {one.user for one in next_one.read()}

    assert len(served_first) >= MAX_READS // 2
    assert not served_first & served_next


def test_a_turn_that_was_stored_behind_the_last_user_begins_again() -> None:
    reader = Reader(held("ann"), turn="ffffffffffffffff#9#")

    assert [one.user for one in reader.read()] == ["ann"]
    assert not reader.heads.is_empty


def test_an_empty_line_is_empty_and_one_with_jobs_just_released_is_not() -> None:
    reader = Reader(turn="0#1#")
    assert reader.read() == []
    assert reader.heads.is_empty

    reader = Reader(held("ann"))
    reader.read()
    reader.heads.release(reader.heads.jobs[0], reader.now)  # the index still has it
    reader.now += 500
    assert (reader.read(), reader.heads.is_empty) == ([], False)


def test_a_user_of_whom_few_jobs_are_left_that_were_read_is_read_again_before_others_get_its_turn() -> None:
    reader = Reader(*(held("busy") for _ in range(200)), *(held("ann") for _ in range(8)))
    reader.read()
    for one in [one for one in reader.heads.jobs if one.user == "busy"][FEW - 1 :]:
        reader.heads.release(one, reader.now)

    assert reader.heads.is_stale(reader.now)
