"""Show and set the limits that all tenants share: those of models and of job types.

A tenant sees the limits, how much of them all use, and how many jobs wait: its own by lane, those of
the others as one sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.limits import rate_limit as rate_rules
from chalicelib.domain.limits import type_rate
from chalicelib.domain.limits.rate_limit import ACCOUNT, RateLimit
from chalicelib.domain.limits.sliding_window import used
from chalicelib.domain.limits.slots import SlotLimit, type_scope
from chalicelib.domain.queues.causes import CauseKind, cause_of
from chalicelib.domain.queues.lanes import LANES
from chalicelib.ports import Line, Prices
from chalicelib.services.compare_and_swap import update
from chalicelib.services.scheduling.visits import ask_for_visit
from chalicelib.services.scheduling.waits import WaitContext, lines_of

MAX_MODELS = 100  # that are shown
MAX_COUNTS = 200  # in one request
MAX_COUNTED = 500  # jobs of one count


class StageLimitsContext(WaitContext, Protocol):
    """What showing and setting these limits needs."""

    @property
    def prices(self) -> Prices: ...
    def all_job_types(self) -> tuple[JobType, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJobs:
    """The jobs that wait for a limit.

    Attributes:
        by_lane: those of the caller's tenant.
        others: those of the other tenants.
        by_tenant: those of each tenant; None for a key of one tenant.
        more: there are more than were counted.
    """

    by_lane: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))
    others: int = 0
    by_tenant: Mapping[str, int] | None = None
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """The limits of a model, and what all tenants have used of them in the last minute."""

    limit: RateLimit
    requests: int | None  # that hold now; None: no such limit is known
    tokens: int | None
    requests_used: int
    tokens_used: int
    waiting: WaitingJobs


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeUse:
    """The limits of a job type, and how much of them all tenants use."""

    kind: JobType
    running: int | None  # None: their number is not limited, so nobody counts them
    starts: int | None  # in the last minute; None: they are not limited
    waiting: WaitingJobs


def is_public_model(prices: Prices, model: str) -> bool:
    """Whether everybody can buy a model. The name of another one, such as a fine-tuned one, can tell about its owner."""
    return ":" not in model and prices.of(model) is not None


def view_models(ctx: StageLimitsContext, caller: Caller) -> list[ModelUse]:
    """Return the models with known limits. A caller of one tenant sees those that everybody can buy or its own jobs wait for."""
    counter = _Counter(ctx, caller)
    known = sorted((limit for limit in ctx.rates.limits() if limit.account == ACCOUNT), key=lambda limit: limit.model)
    shown = [limit for limit in known if caller.all_tenants or is_public_model(ctx.prices, limit.model) or counter.waits_for(limit.model)]
    return [_model_use(ctx, limit, counter) for limit in shown[:MAX_MODELS]]


def view_types(ctx: StageLimitsContext, caller: Caller) -> list[TypeUse]:
    """Return the job types that have limits."""
    counter = _Counter(ctx, caller)
    return [_type_use(ctx, kind, counter) for kind in ctx.all_job_types() if kind.limits is not None]


def set_model_limits(ctx: StageLimitsContext, caller: Caller, model: str, change: Mapping[str, int | None]) -> ModelUse:
    """Set or clear the limits of a model; what is not named stays. Waiting jobs are looked at now.

    Args:
        change: `requests` and `tokens` of a minute; None: as learnt from OpenAI.

    Raises:
        Unavailable: they may or may not be set; repeat the request.
    """
    missing = RateLimit(model=model, account=ACCOUNT)
    seen = ctx.rates.limit(ACCOUNT, model)

    def configured(current: RateLimit) -> RateLimit:
        requests = change.get("requests", current.configured_requests)
        return rate_rules.configure(current, requests, change.get("tokens", current.configured_tokens))

    limit = update(ctx.rates.save_limit, seen or missing, configured, missing=missing) or missing
    if limit != seen and limit.version:
        values = {"requests": limit.configured_requests, "tokens": limit.configured_tokens}
        ctx.log("model_limits_set", model=model, by=caller.user, **values)
    ask_for_visit(ctx, cause_of(CauseKind.RATE, model))
    return _model_use(ctx, limit, _Counter(ctx, caller))


def _model_use(ctx: StageLimitsContext, limit: RateLimit, counter: _Counter) -> ModelUse:
    now = ctx.clock.now()
    requests, tokens = rate_rules.known_limits(limit, now)
    is_limited = requests is not None or tokens is not None
    requests_used, tokens_used = used(ctx.rates.frames(ACCOUNT, limit.model, now), now) if is_limited else (0, 0)
    return ModelUse(
        limit=limit,
        requests=requests,
        tokens=tokens,
        requests_used=requests_used,
        tokens_used=tokens_used,
        waiting=counter.waiting(cause_of(CauseKind.RATE, limit.model)),
    )


def _type_use(ctx: StageLimitsContext, kind: JobType, counter: _Counter) -> TypeUse:
    limits, now = kind.limits, ctx.clock.now()
    running = starts = None
    if limits is not None and limits.concurrency is not None:
        slots = SlotLimit(scope=type_scope(kind.name), limit=limits.concurrency)
        running = slots.used(ctx.jobs.slots_taken(slots.keys))
    if limits is not None and limits.per_minute is not None:
        starts = used(ctx.rates.frames(type_rate.ACCOUNT, kind.name, now), now)[0]
    return TypeUse(kind=kind, running=running, starts=starts, waiting=counter.waiting(cause_of(CauseKind.TYPE, kind.name)))


class _Counter:
    """Counts jobs in lines, with a bounded number of requests."""

    def __init__(self, ctx: StageLimitsContext, caller: Caller) -> None:
        self._ctx, self._caller, self._left = ctx, caller, MAX_COUNTS

    def waits_for(self, model: str) -> bool:
        """Whether the caller's tenant has a line for the rate of a model."""
        return any(line.tenant == self._caller.tenant for line in lines_of(self._ctx, cause_of(CauseKind.RATE, model)))

    def waiting(self, cause: str) -> WaitingJobs:
        own, more = dict.fromkeys(LANES, 0), False
        counts: dict[str, int] = {}
        for line in sorted(lines_of(self._ctx, cause), key=lambda line: line.tenant != self._caller.tenant):
            if line.tenant == self._caller.tenant:
                by_lane, is_more = self._count_lanes_by_user(line) if line.by_user else self._count_lanes(line)
                own = {lane: own[lane] + count for lane, count in by_lane.items()}
                found = sum(by_lane.values())
            else:
                found, is_more = self._count(line)
            counts[line.tenant] = counts.get(line.tenant, 0) + found
            more |= is_more
        others = sum(counts.values()) - sum(own.values())
        by_tenant = {tenant: count for tenant, count in counts.items() if count} if self._caller.all_tenants else None
        return WaitingJobs(by_lane=own, others=others, by_tenant=by_tenant, more=more)

    def _count_lanes(self, line: Line) -> tuple[dict[str, int], bool]:
        counted = {lane: self._count(line, lane) for lane in LANES}
        return {lane: count for lane, (count, _) in counted.items()}, any(more for _, more in counted.values())

    def _count_lanes_by_user(self, line: Line) -> tuple[dict[str, int], bool]:
        """One request: lanes are not together in such a line."""
        if self._left <= 0:
            return dict.fromkeys(LANES, 0), True
        self._left -= 1
        found = self._ctx.lines.held(line.cause, line.tenant, MAX_COUNTED + 1, by_user=True)
        lanes = Counter(job.lane for job in found[:MAX_COUNTED])
        return {lane: lanes[lane] for lane in LANES}, len(found) > MAX_COUNTED

    def _count(self, line: Line, lane: str | None = None) -> tuple[int, bool]:
        """Count up to `MAX_COUNTED` jobs; and whether there are more, or may be."""
        if self._left <= 0:
            return 0, True
        self._left -= 1
        found = self._ctx.lines.count(line.cause, line.tenant, MAX_COUNTED + 1, lane=lane, by_user=line.by_user)
        return min(found, MAX_COUNTED), found > MAX_COUNTED
