"""Start-time fair queueing over tenants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.limits import fair_queue
from chalicelib.domain.limits.fair_queue import AGE_MS, MIN_COST, FairQueue, cost_of
from chalicelib.domain.limits.held_job import HeldJob

NOW = 1_763_800_000_000
LIMIT = 500  # requests a minute
COST = cost_of(0, LIMIT, None)


def job(tenant: str, lane: str = "normal", number: int = 0, queued_at: int = NOW, tokens: int = 0, user: str | None = None) -> HeldJob:
    return HeldJob(
        job_id=f"job_{tenant}_{user}_{lane}_{number:06}",
        generation=1,
        tenant=tenant,
        user=user or "ann",
        by_user=user is not None,
        lane=lane,
        queued_at=queued_at,
        tokens=tokens,
        type="general",
        model="gpt-4o",
        crashes=0,
        place="",
    )


class Lines:
    """The lines of one cause, and what is released from them."""

    def __init__(self, *jobs: HeldJob, weights: dict[str, float] | None = None) -> None:
        self.queue, self.weights = FairQueue(), weights or {}
        self.lines: dict[str, dict[str, list[HeldJob]]] = {}
        self.add(*jobs)

    def add(self, *jobs: HeldJob) -> None:
        for one in sorted(jobs, key=lambda one: one.queued_at):
            self.lines.setdefault(one.tenant, {}).setdefault(f"{one.user} {one.lane}", []).append(one)
            self.queue.join(one.tenant, self.weights.get(one.tenant, 1.0))

    def release(self, count: int, cost: Callable[[HeldJob], float] = lambda _: COST, now: int = NOW) -> list[HeldJob]:
        """Release jobs as the scheduler does, which reads the first of each lane."""
        released: list[HeldJob] = []
        while len(released) < count:
            heads = {tenant: [lane[0] for lane in lanes.values() if lane] for tenant, lanes in self.lines.items()}
            found = self.queue.next(heads, now)
            if found is None:
                break
            self.queue.charge(found.tenant, cost(found), found.lane, found.user)
            assert self.lines[found.tenant][f"{found.user} {found.lane}"].pop(0) == found
            released.append(found)
        return released


def many(tenant: str, lane: str, count: int, **fields: Any) -> list[HeldJob]:
    return [job(tenant, lane, number, **fields) for number in range(count)]


def shares(released: Iterable[HeldJob], key: Callable[[HeldJob], str] = lambda one: one.tenant) -> dict[str, float]:
    counted = Counter(key(one) for one in released)
    return {name: number / counted.total() for name, number in counted.items()}


def test_weights_of_one_and_three_give_a_quarter_and_three_quarters() -> None:
    lines = Lines(*many("a", "normal", 500), *many("b", "normal", 500), weights={"a": 1, "b": 3})

    assert shares(lines.release(400)) == pytest.approx({"a": 0.25, "b": 0.75}, abs=0.03)


def test_weights_share_tokens_and_not_jobs() -> None:
    """A tenant with large requests starts fewer of them."""
    lines = Lines(*many("large", "normal", 400, tokens=8_000), *many("small", "normal", 900, tokens=1_000))
    released = lines.release(700, lambda one: cost_of(one.tokens, LIMIT, 200_000))

    tokens = {tenant: sum(one.tokens for one in released if one.tenant == tenant) for tenant in ("large", "small")}
    assert tokens["large"] / sum(tokens.values()) == pytest.approx(0.5, abs=0.03)


def test_a_tenant_that_joins_late_has_no_credit_and_waits_for_nobody() -> None:
    lines = Lines(*many("early", "normal", 500))
    lines.release(300)
    lines.add(*many("late", "normal", 300))

    released = lines.release(100)
    assert released[1].tenant == "late" or released[0].tenant == "late"
    assert shares(released) == pytest.approx({"early": 0.5, "late": 0.5}, abs=0.03)


def test_a_tenant_with_a_job_now_and_then_is_served_next_and_saves_nothing() -> None:
    """While it has nothing waiting its virtual time does not fall behind."""
    lines = Lines(*many("busy", "normal", 500))
    lines.add(job("rare", number=1))
    lines.release(100)
    lines.add(job("rare", number=2))
    assert "rare" in {one.tenant for one in lines.release(2)}
    lines.release(100)

    lines.add(*many("rare", "normal", 50))
    assert shares(lines.release(40)) == pytest.approx({"busy": 0.5, "rare": 0.5}, abs=0.03)


def test_calling_everything_urgent_takes_nothing_from_others() -> None:
    """Nineteen tenants with normal jobs share equally with one that has 5,000 urgent ones."""
    others = [f"t{number:02}" for number in range(19)]
    lines = Lines(*many("a", "urgent", 200), *(one for tenant in others for one in many(tenant, "normal", 60)))

    got = shares(lines.release(1_000))
    assert min(got[tenant] for tenant in others) >= 0.04
    assert 0.02 <= got["a"] <= 0.05


@pytest.mark.parametrize(("better", "lane", "floor"), [("urgent", "low", 0.05), ("urgent", "normal", 0.1), ("high", "low", 0.05)])
def test_no_lane_of_a_tenant_is_starved_by_a_better_one(better: str, lane: str, floor: float) -> None:
    lines = Lines(*many("a", better, 900), *many("a", lane, 900))

    got = shares(lines.release(800), lambda one: one.lane)
    assert got[lane] == pytest.approx(floor, abs=0.01)


def test_floors_count_within_a_tenant() -> None:
    """What others release does not change which lane of a tenant is next."""
    lines = Lines(*many("a", "urgent", 400), *many("a", "low", 400), *many("b", "low", 400))

    own = [one for one in lines.release(500) if one.tenant == "a"]
    assert shares(own, lambda one: one.lane)["low"] == pytest.approx(0.05, abs=0.01)


def test_lanes_and_age_order_the_jobs_of_a_tenant() -> None:
    low, old, new, urgent = (
        job("a", "low", queued_at=1),
        job("a", number=2, queued_at=2),
        job("a", number=1, queued_at=3),
        job("a", "urgent"),
    )
    assert Lines(low, new, old, urgent).release(4, now=NOW - NOW) == [urgent, old, new, low]


@pytest.mark.parametrize(("minutes", "first"), [(29, "urgent"), (31, "low")])
def test_a_job_rises_by_a_lane_with_each_ten_minutes(minutes: int, first: str) -> None:
    waited = job("a", "low", queued_at=NOW - minutes * 60_000)
    fresh = job("a", "urgent", queued_at=NOW)

    assert AGE_MS == 600_000
    assert Lines(waited, fresh).release(1)[0].lane == first


def test_a_charge_that_is_taken_back_leaves_no_trace() -> None:
    lines = Lines(*many("a", "normal", 50), *many("b", "normal", 50))
    lines.release(10)
    before = lines.queue.positions()

    lines.queue.charge("a", COST, "urgent")
    lines.queue.refund("a", COST, "urgent")

    assert lines.queue.positions() == pytest.approx(before)


def test_a_job_that_is_not_charged_is_next_again() -> None:
    """It does not fit yet; nobody's smaller job passes it for ever."""
    lines = Lines(*many("a", "normal", 3), *many("b", "normal", 3))
    heads = {"a": [job("a", tokens=9_000)], "b": [job("b", tokens=1)]}

    assert lines.queue.next(heads, NOW) == lines.queue.next(heads, NOW)


def test_a_scheduler_that_starts_anew_goes_on_where_it_was() -> None:
    """Virtual times are stored now and then; one that was lost is the lowest of the others."""
    anew = FairQueue()
    anew.join("lost")
    anew.join("a", position=5_000.0)
    anew.join("b", position=5_000.002)
    heads = {tenant: [job(tenant)] for tenant in ("lost", "a", "b")}

    served = []
    for _ in range(5):
        found = anew.next(heads, NOW)
        assert found is not None
        anew.charge(found.tenant, COST)
        served.append(found.tenant)

    assert anew.positions()["lost"] >= 5_000.0
    assert Counter(served) == {"a": 2, "b": 1, "lost": 2}


def test_nobody_waits_without_jobs() -> None:
    queue = FairQueue()
    assert queue.next({}, NOW) is None
    queue.join("a")
    assert queue.next({"a": []}, NOW) is None
    assert queue.next({"b": [job("b")]}, NOW) is None, "it has not joined"
    queue.join("b")
    queue.leave("b")
    queue.charge("b", COST)
    assert queue.positions() == {}


def test_a_changed_weight_counts_from_the_next_release() -> None:
    lines = Lines(*many("a", "normal", 600), *many("b", "normal", 600))
    lines.release(100)
    lines.queue.join("b", 4.0)

    assert shares(lines.release(300)) == pytest.approx({"a": 0.2, "b": 0.8}, abs=0.03)


def test_the_cost_of_a_job_is_its_larger_part_of_a_limit() -> None:
    assert cost_of(1_000, 500, 200_000) == 1_000 / 200_000
    assert cost_of(10, 500, 200_000) == 1 / 500
    assert cost_of(10, None, None) == 1.0
    assert cost_of(0, None, 1_000) == MIN_COST, "a job without a cost would always be next"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["urgent", "high", "normal", "low", "of_tomorrow"])), max_size=60))
def test_whatever_waits_is_released_once(jobs: list[tuple[str, str]]) -> None:
    waiting = [job(tenant, lane, number) for number, (tenant, lane) in enumerate(jobs)]
    released = Lines(*waiting).release(len(waiting) + 1)

    assert sorted(one.job_id for one in released) == sorted(one.job_id for one in waiting)


# ---- the users of a tenant


def of_user(one: HeldJob) -> str:
    return one.user


@given(st.lists(st.integers(20, 60), min_size=2, max_size=6))
def test_users_that_wait_get_equal_shares_whoever_has_more(counts: list[int]) -> None:
    lines = Lines(*(one for number, count in enumerate(counts) for one in many("a", "normal", count, user=f"u{number}")))

    got = Counter(map(of_user, lines.release(len(counts) * min(counts))))

    assert max(got.values()) - min(got.values()) <= 1


def test_users_share_tokens_and_not_jobs() -> None:
    lines = Lines(*many("a", "normal", 400, user="large", tokens=8_000), *many("a", "normal", 900, user="small", tokens=1_000))
    released = lines.release(700, lambda one: cost_of(one.tokens, LIMIT, 200_000))

    tokens = {user: sum(one.tokens for one in released if one.user == user) for user in ("large", "small")}
    assert tokens["large"] / sum(tokens.values()) == pytest.approx(0.5, abs=0.03)


def test_a_user_with_a_job_now_and_then_is_next_and_saves_nothing() -> None:
    lines = Lines(*many("a", "normal", 500, user="busy"))
    for number in range(3):
        lines.release(50)
        lines.add(job("a", number=number, user="rare"))
        assert "rare" in {one.user for one in lines.release(2)}
    lines.add(*(job("a", number=100 + number, user="rare") for number in range(50)))
    assert shares(lines.release(40), of_user) == pytest.approx({"busy": 0.5, "rare": 0.5}, abs=0.03)


def test_users_share_what_their_tenant_gets_and_no_more() -> None:
    """Nine users of one tenant get together as much as the other tenant, which shares by lane and age."""
    lines = Lines(*(one for number in range(9) for one in many("a", "normal", 100, user=f"u{number}")), *many("b", "normal", 500))

    released = lines.release(360)

    assert shares(released) == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.01)
    assert shares([one for one in released if one.tenant == "a"], of_user) == pytest.approx(
        {f"u{number}": 1 / 9 for number in range(9)}, abs=0.01
    )


def test_weights_of_tenants_hold_whatever_their_users_are() -> None:
    lines = Lines(
        *many("a", "normal", 300, user="ann"), *many("a", "normal", 300, user="bob"), *many("b", "normal", 600), weights={"a": 1, "b": 3}
    )

    assert shares(lines.release(400)) == pytest.approx({"a": 0.25, "b": 0.75}, abs=0.03)


def test_lanes_and_age_order_the_jobs_of_a_user_and_urgency_costs_it() -> None:
    """A user that calls everything urgent goes before nobody else."""
    lines = Lines(*many("a", "urgent", 100, user="ann"), *many("a", "normal", 100, user="bob"))
    got = shares(lines.release(90), of_user)
    assert got == pytest.approx({"ann": 1 / 3, "bob": 2 / 3}, abs=0.03)

    low, old, new, urgent = (
        job("a", "low", queued_at=1, user="ann"),
        job("a", number=2, queued_at=2, user="ann"),
        job("a", number=1, queued_at=3, user="ann"),
        job("a", "urgent", user="ann"),
    )
    assert Lines(low, new, old, urgent).release(4, now=0) == [urgent, old, new, low]


def test_no_lane_of_a_user_is_starved_by_a_better_one_of_that_user() -> None:
    lines = Lines(*many("a", "urgent", 900, user="ann"), *many("a", "low", 900, user="ann"), *many("a", "low", 900, user="bob"))

    own = [one for one in lines.release(1_500) if one.user == "ann"]

    assert shares(own, lambda one: one.lane)["low"] == pytest.approx(0.05, abs=0.02)


def test_jobs_that_were_held_before_a_tenant_shared_by_user_have_their_turns_by_user_too() -> None:
    lines = Lines(*many("a", "normal", 200), *many("a", "normal", 50, user="bob"))  # the first ones of `ann`, in the other line

    assert shares(lines.release(60), of_user) == pytest.approx({"ann": 0.5, "bob": 0.5}, abs=0.03)


def test_a_charge_that_is_taken_back_gives_the_user_its_turn_again() -> None:
    lines = Lines(*many("a", "normal", 5, user="ann"), *many("a", "normal", 5, user="bob"))
    (first,) = lines.release(1)
    lines.queue.refund("a", COST, first.lane, first.user)

    assert [one.user for one in lines.release(1)] == [first.user]


def test_of_many_users_only_so_many_are_remembered_and_all_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "MAX_USERS", 10)
    lines = Lines(*(one for number in range(50) for one in many("a", "normal", 4, user=f"u{number:02}")))

    released = lines.release(200)

    assert len(released) == 200
    assert set(Counter(map(of_user, released)).values()) == {4}
    assert len(set(map(of_user, released[:100]))) >= 25
