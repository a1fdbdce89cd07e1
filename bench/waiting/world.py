"""A stage in virtual time, with one model: workers, the scheduler of its lines, and the provider.

What decides is the product's own code: the sliding window, the fair queue, what is learnt from the
provider, and the store's twin in memory. What is simulated is everything around it: how long
requests to the store take, when the index shows a held job, queues, cold starts, wrong clocks,
workers that die and messages that are lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from bench.waiting.engine import Engine
from bench.waiting.provider import Provider
from chalicelib.adapters.memory.rates import MemoryRates
from chalicelib.domain.limits.fair_queue import FairQueue
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.limits.rate_limit import RateLimit, effective, learn_from_headers, learn_from_refusal
from chalicelib.domain.limits.releases import choose_releases, job_cost, standing
from chalicelib.domain.limits.sliding_window import CEILINGS, Frames, Limits, fits
from chalicelib.domain.queues.release_room import ReleaseRoom
from chalicelib.services.scheduling.user_lines import PAGE_SIZE

EPOCH_MS = 1_763_800_000_000
ACCOUNT, MODEL = "a", "m"
STORE_SECONDS = 0.009  # of a request to the store, on average
INDEX_SECONDS = 0.3  # until the index of lines shows a change, on average
DELIVERY_SECONDS = 0.03  # of a message to a warm worker, on average
COLD_SECONDS = (0.5, 3.0)
REQUEST_SECONDS = 0.06  # from the claim to the provider
ANSWER_SECONDS = 0.5  # until the head of the answer
GRANT_SECONDS = 3.0  # how long what the scheduler took is good
ROUND_SECONDS, ROWS_SECONDS, RELEASED_SECONDS = 0.5, 2.0, 15.0  # of the scheduler
LIMIT_SECONDS = 2.0  # how long limits are cached
MAX_HEADS = 100  # of a tenant's line that the scheduler reads


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """Who submits what."""

    name: str
    jobs: int = 0  # at the beginning
    every: float | None = None  # seconds between two more
    weight: float = 1.0
    lane: str = "normal"
    tokens: tuple[int, int] = (0, 0)  # of a request, from and to
    user_of: str | None = None  # it is a user of this tenant; None: a tenant


@dataclass(frozen=True, kw_only=True)
class Case:
    """One load, and what goes wrong in it."""

    name: str
    requests: int | None = None  # the limits of a minute
    tokens: int | None = None
    tenants: tuple[Tenant, ...]
    seconds: float = 600.0
    clock_error: float = 0.1  # standard deviation, seconds; at most 1
    cold: float = 0.05  # part of the releases that meet a cold start
    dying: float = 0.01  # part of the workers that die with a grant
    lost: float = 0.002  # part of the releases that are lost
    estimate_error: float = 0.0  # standard deviation of what a request is charged, as a part of the estimate
    deaths: tuple[float, ...] = ()  # when the scheduler dies
    death_seconds: float = 25.0  # until the next one begins, at most
    lowered_at: float | None = None  # when the provider halves its limits
    tells: str = "header"
    foreign: float = 0.0  # part of the limit that others use
    starts_per_second: float | None = None  # of the queue `ready`; None: as many as come
    by_user: bool = False  # the tenants share by user
    strangers: tuple[str, ...] = ()  # whose waits are measured
    max_used: float = 1.0  # part of the limit that the requests can fill


@dataclass
class World:
    """A run of a case."""

    case: Case
    engine: Engine = field(default_factory=lambda: Engine(""))
    rates: MemoryRates = field(default_factory=MemoryRates)
    limit: RateLimit = field(init=False)
    provider: Provider = field(init=False)
    fair: FairQueue = field(default_factory=FairQueue)
    held: dict[str, dict[str, HeldJob]] = field(default_factory=dict)  # what the index shows, by tenant and job
    rows: dict[str, float] = field(default_factory=dict)  # the lines and when they were touched
    known_rows: set[str] = field(default_factory=set)  # as the scheduler has read them
    released: dict[str, float] = field(default_factory=dict)
    submitted: dict[str, float] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    cost: Counter[str] = field(default_factory=Counter)
    ready: int = 0  # messages in the queue `ready`
    room: ReleaseRoom = field(default_factory=ReleaseRoom)
    ready_at: float = 0.0
    limits: Limits = field(default_factory=Limits)
    down_until: float = 0.0

    def __post_init__(self) -> None:
        self.provider = Provider(self.case.requests, self.case.tokens, enforces=self.case.lowered_at is not None or self.case.foreign > 0)
        self.provider.tells = self.case.tells
        self.limit = RateLimit(model=MODEL, account=ACCOUNT, requests=self.case.requests, tokens=self.case.tokens)
        self.limits = effective(self.limit, self.clock(0.0))
        self._skews = [max(-1.0, min(1.0, self.engine.random.gauss(0.0, self.case.clock_error))) for _ in range(450)]
        self._skew = self._skews[0]  # of the scheduler

    def clock(self, skew: float) -> int:
        return EPOCH_MS + round(1000 * (self.engine.now + skew))

    def run(self) -> World:
        """Run the case, with a scheduler of its own."""
        self.engine = Engine(self.case.name)
        self.begin()
        self._round()
        self.engine.run(self.case.seconds)
        return self

    def begin(self) -> None:
        """Let the tenants submit, and what goes wrong happen."""
        for tenant in self.case.tenants:
            for number in range(tenant.jobs):  # as fast as 450 workers receive them
                self.engine.after(number / 1_500, lambda tenant=tenant: self._submit(tenant))  # type: ignore[misc]
            if tenant.every is not None:
                self.engine.after(tenant.every * self.engine.random.random(), lambda tenant=tenant: self._submit_again(tenant))  # type: ignore[misc]
        for at in self.case.deaths:
            self.engine.after(at, self._die)
        if self.case.lowered_at is not None:
            self.engine.after(self.case.lowered_at, self._lower)
        if self.case.foreign:
            self._foreign_request()
        self._read_rows()
        self._read_limits()

    def hold_all(self, jobs: int, tenants: tuple[Tenant, ...]) -> None:
        """Let tenants have jobs that wait already."""
        for tenant in tenants:
            self.rows[tenant.name] = self.engine.now
            for _ in range(jobs):
                job = self._job(tenant)
                self.submitted[job.job_id] = self.engine.now
                self._show(job)

    # ---- what happens around

    def _submit(self, tenant: Tenant) -> None:
        job = self._job(tenant)
        self.submitted[job.job_id] = self.engine.now
        self._deliver(lambda: self._receive(job, None))

    def _job(self, tenant: Tenant) -> HeldJob:
        return HeldJob(
            job_id=f"{tenant.name}/{len(self.submitted)}",
            generation=1,
            tenant=tenant.user_of or tenant.name,
            user=tenant.name,
            by_user=self.case.by_user,
            type="general",
            lane=tenant.lane,
            model=MODEL,
            queued_at=self.clock(0.0),
            tokens=self.engine.random.randint(*tenant.tokens),
            crashes=0,
            place="",
        )

    def _submit_again(self, tenant: Tenant) -> None:
        assert tenant.every is not None
        self._submit(tenant)
        self.engine.after(tenant.every * self.engine.random.uniform(0.8, 1.2), lambda: self._submit_again(tenant))

    def _die(self) -> None:
        self.down_until = self.engine.now + self.engine.random.uniform(5.0, self.case.death_seconds)
        self.fair = FairQueue()  # the next one knows no virtual times
        for tenant in self.held:
            self.fair.join(tenant, self._weight(tenant))

    def _lower(self) -> None:
        for kind in ("requests", "tokens"):
            if (limit := getattr(self.provider, kind)) is not None:
                setattr(self.provider, kind, limit / 2)

    def _foreign_request(self) -> None:
        assert self.case.requests is not None
        self.provider.ask(self.engine.now, 0)
        self.provider.arrivals.pop()
        self.engine.after(self.engine.random.expovariate(self.case.foreign * self.case.requests / 60), self._foreign_request)

    def _store(self, effect: Callable[[], Any], answer: Callable[[Any], None], units: float = 1.0) -> None:
        """Make a request to the store: its effect comes half-way."""
        half = self.engine.random.gammavariate(4.0, STORE_SECONDS / 8)
        self.cost["WRU"] += units  # type: ignore[assignment]

        def happen() -> None:
            found = effect()
            self.engine.after(half, lambda: answer(found))

        self.engine.after(half, happen)

    def _deliver(self, callback: Callable[[], None], *, released: bool = False) -> None:
        wait = self.engine.random.gammavariate(3.0, DELIVERY_SECONDS / 3)
        if released and self.engine.random.random() < self.case.cold:
            wait += self.engine.random.uniform(*COLD_SECONDS)
        self.engine.after(wait, callback)

    # ---- a worker

    def _receive(self, job: HeldJob, granted_at: int | None) -> None:
        """Decide about a job: it starts, asks, or is held."""
        self.cost["wake-ups"] += 1
        if job.job_id in self.started:
            return
        skew = self._skews[self.engine.random.randrange(len(self._skews))]
        if granted_at is not None and self.engine.random.random() < self.case.dying:
            return  # it dies with what was taken for the job
        if granted_at is not None and self.clock(skew) - granted_at <= 1000 * GRANT_SECONDS:
            self._claim(job, granted_at)
        elif granted_at is not None:
            self.cost["expired grants"] += 1
            self._give_back(job.tokens, 1, granted_at)
            self._ask(job, skew)
        elif job.tenant in self.rows and self.held.get(job.tenant):  # it queries its line, if there is a row
            self._hold(job)
        else:
            self._ask(job, skew)

    def _ask(self, job: HeldJob, skew: float) -> None:
        at, limits = self.clock(skew), self._limits()

        def answer(frames: Frames) -> None:
            if fits(frames, limits, job.tokens, at, CEILINGS[job.lane]):
                self._claim(job, at)
            else:
                self._give_back(job.tokens, 1, at)
                self._hold(job)

        self._store(lambda: self.rates.take(ACCOUNT, MODEL, job.tokens, 1, at), answer)

    def _give_back(self, tokens: int, requests: int, at: int) -> None:
        self._store(lambda: self.rates.give_back(ACCOUNT, MODEL, tokens, requests, at), lambda _: None)

    def _hold(self, job: HeldJob) -> None:
        """The row of the line first, then the record; the index shows it a moment later."""
        if job.job_id in self.held.get(job.tenant, {}):
            return

        def recorded(_: Any) -> None:
            self.engine.after(self.engine.random.expovariate(1 / INDEX_SECONDS), lambda: self._show(job))

        touched = self.engine.now - self.rows.get(job.tenant, -10.0) < 5.0
        self._store(
            lambda: self.rows.__setitem__(job.tenant, self.engine.now),
            lambda _: self._store(lambda: None, recorded, 6),
            0 if touched else 1,
        )

    def _show(self, job: HeldJob) -> None:
        self.held.setdefault(job.tenant, {})[job.job_id] = job

    def _hide(self, job: HeldJob) -> None:
        self.held.get(job.tenant, {}).pop(job.job_id, None)

    def _claim(self, job: HeldJob, taken_at: int) -> None:
        """Claim the job, which takes it out of its line, and make its request."""

        def claimed(_: Any) -> None:
            self.engine.after(self.engine.random.expovariate(1 / INDEX_SECONDS), lambda: self._hide(job))
            self.engine.after(self.engine.random.gammavariate(4.0, REQUEST_SECONDS / 4), lambda: self._request(job, taken_at))

        if job.job_id in self.started:
            return
        self.started[job.job_id] = self.engine.now
        self._store(lambda: None, claimed, 5 if job.job_id in self.held.get(job.tenant, {}) else 1)

    def _request(self, job: HeldJob, taken_at: int) -> None:
        charged = max(1, round(job.tokens * self.engine.random.gauss(1.0, self.case.estimate_error))) if job.tokens else 0
        refusal = self.provider.ask(self.engine.now, charged)
        if refusal is None:
            self.started[job.job_id] = self.engine.now
            headers = self.provider.headers()
            self.engine.after(ANSWER_SECONDS, lambda: self._learn(lambda limit, now: learn_from_headers(limit, headers, now)))
            return
        frames = self.rates.frames(ACCOUNT, MODEL, taken_at)
        self._learn(lambda limit, now: learn_from_refusal(limit, refusal, frames, now))
        del self.started[job.job_id]
        self._hide(job)
        self._hold(replace(job, generation=job.generation + 1))

    def _learn(self, change: Callable[[RateLimit, int], RateLimit]) -> None:
        changed = change(self.limit, self.clock(0.0))
        self.cost["limits written"] += changed is not self.limit
        self.limit = changed

    def _limits(self) -> Limits:
        return self.limits

    def _read_limits(self) -> None:
        self.limits = effective(self.limit, self.clock(0.0))
        self.engine.after(LIMIT_SECONDS / 4 if self.case.lowered_at or self.case.foreign else LIMIT_SECONDS, self._read_limits)

    # ---- the scheduler

    def _weight(self, tenant: str) -> float:
        return next(one.weight for one in self.case.tenants if tenant in (one.name, one.user_of))

    def _read_rows(self) -> None:
        for tenant, touched_at in list(self.rows.items()):
            self.fair.join(tenant, self._weight(tenant))
            self.known_rows.add(tenant)
            if not self.held.get(tenant) and self.engine.now - touched_at > 30.0:
                del self.rows[tenant]
                self.known_rows.discard(tenant)
                self.fair.leave(tenant)
        self.engine.after(ROWS_SECONDS, self._read_rows)

    def _round(self) -> None:
        self.engine.after(ROUND_SECONDS, self._round)
        if self.engine.now >= self.down_until:
            self.visit()

    def visit(self) -> int:
        """Release what fits. Returns: how many jobs were chosen."""
        heads = {tenant: self._heads(tenant) for tenant in self.known_rows}
        if not any(heads.values()):
            return 0
        at, limits = self.clock(self._skew), effective(self.limit, self.clock(self._skew))
        frames = self.rates.frames(ACCOUNT, MODEL, at)
        chosen = choose_releases(self.fair, heads, frames, limits, at, self.room.room(self.ready, at))
        jobs = chosen.jobs
        if not jobs:
            return 0
        tokens = sum(job.tokens for job in jobs)
        for job in jobs:
            self.released[job.job_id] = self.engine.now
        self._store(lambda: self.rates.take(ACCOUNT, MODEL, tokens, len(jobs), at), lambda frames: self._taken(jobs, frames, limits, at))
        return len(jobs)

    def _heads(self, tenant: str) -> list[HeldJob]:
        """Return the first jobs that were not just released; of each user, if the tenants share by user."""
        if self.case.by_user:
            users: dict[str, list[HeldJob]] = {}
            for job in self.held.get(tenant, {}).values():
                own = users.setdefault(job.user, [])
                if len(own) < PAGE_SIZE and self.engine.now - self.released.get(job.job_id, -100.0) >= RELEASED_SECONDS:
                    own.append(job)
            return [job for own in users.values() for job in own]
        found: list[HeldJob] = []
        for job in self.held.get(tenant, {}).values():
            if self.engine.now - self.released.get(job.job_id, -100.0) >= RELEASED_SECONDS:
                found.append(job)
                if len(found) == MAX_HEADS:
                    break
        return found

    def _taken(self, jobs: list[HeldJob], frames: Frames, limits: Limits, at: int) -> None:
        count = standing(jobs, frames, limits, at)
        for job in jobs[count:]:
            self.fair.refund(job.tenant, job_cost(job, limits), job.lane, job.user)
            del self.released[job.job_id]
        if jobs[count:]:
            self._give_back(sum(job.tokens for job in jobs[count:]), len(jobs) - count, at)
        for job in jobs[:count]:
            if self.engine.random.random() >= self.case.lost:
                self._send(job, at)

    def _send(self, job: HeldJob, at: int) -> None:
        """Put the wake-up into the queue `ready`, which starts so many a second."""
        self.ready += 1
        self.room.sent(1)
        self.cost["grants"] += 1

        def start() -> None:
            self.ready -= 1
            self._deliver(lambda: self._receive(job, at), released=True)

        wait = self.engine.random.gammavariate(3.0, 0.005)
        if self.case.starts_per_second is not None:
            self.ready_at = max(self.ready_at, self.engine.now) + 1 / self.case.starts_per_second
            wait += self.ready_at - self.engine.now
        self.engine.after(wait, start)
