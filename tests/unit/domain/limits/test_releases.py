"""Which jobs of the lines of a model are released."""

from __future__ import annotations

from chalicelib.domain.limits.fair_queue import FairQueue
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.limits.releases import choose_releases, job_cost, standing
from chalicelib.domain.limits.sliding_window import Limits, added
from tests.unit.domain.limits.test_fair_queue import NOW, job


def queue_of(*jobs: HeldJob) -> tuple[FairQueue, dict[str, list[HeldJob]]]:
    fair, heads = FairQueue(), dict[str, list[HeldJob]]()
    for one in jobs:
        fair.join(one.tenant)
        heads.setdefault(one.tenant, []).append(one)
    return fair, heads


def test_jobs_are_chosen_in_turn_until_the_pace_is_reached() -> None:
    fair, heads = queue_of(*(job(tenant, number=number) for tenant in "ab" for number in range(100)))
    found = choose_releases(fair, heads, (), Limits(requests=6_000), NOW, most=200)

    assert len(found.jobs) == 149
    assert {tenant: sum(one.tenant == tenant for one in found.jobs) for tenant in "ab"} == {"a": 75, "b": 74}
    assert found.next_at == (NOW // 1000 + 1) * 1000


def test_a_large_job_is_not_passed_by_a_small_one() -> None:
    fair, heads = queue_of(job("a", tokens=9_000), job("b", number=1, tokens=10, queued_at=NOW + 1))
    frames = added((), NOW, 1, 5_000)
    found = choose_releases(fair, heads, frames, Limits(tokens=10_000), NOW, most=10)

    assert (found.jobs, found.next_at) == ([], (NOW // 1000 + 63) * 1000)


def test_a_job_above_the_limit_is_released_to_be_refused() -> None:
    large, small = job("a", tokens=10_001), job("a", number=1, tokens=10)
    fair, heads = queue_of(large, small)
    found = choose_releases(fair, heads, (), Limits(tokens=10_000), NOW, most=10)

    assert (found.jobs, found.too_large, found.next_at) == ([small], [large], None)


def test_not_more_than_asked_for_are_chosen() -> None:
    fair, heads = queue_of(*(job(tenant, number=number) for tenant in "ab" for number in range(10)))

    assert len(choose_releases(fair, heads, (), Limits(), NOW, most=3).jobs) == 3
    found = choose_releases(fair, heads, (), Limits(), NOW, most=10, most_of={"a": 1})
    assert [one.tenant for one in found.jobs].count("a") == 1
    assert len(found.jobs) == 10


def test_what_others_took_meanwhile_is_given_back() -> None:
    limits, jobs = Limits(requests=1_200), [job("a", number=number) for number in range(20)]
    fair, heads = queue_of(*jobs)
    chosen = choose_releases(fair, heads, (), limits, NOW, most=20).jobs
    frames = added((), NOW, len(chosen) + 13, 0)

    count = standing(chosen, frames, limits, NOW)

    assert (len(chosen), count) == (20, 17)
    assert standing(chosen, added((), NOW, len(chosen), 0), limits, NOW) == 20
    assert standing([], (), limits, NOW) == 0
    assert job_cost(chosen[0], limits) == 1 / 1_200
