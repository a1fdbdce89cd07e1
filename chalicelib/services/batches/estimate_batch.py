"""What a batch will probably cost and take, told before anything is paid or made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.batches.batch import DEFAULT_GROUP_SIZE
from chalicelib.domain.batches.row import Row
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.units import Ms, Nano
from chalicelib.services.batches.context import BatchContext
from chalicelib.services.batches.release_rows import submission_of
from chalicelib.services.batches.submit_batch import PreparedBatch
from chalicelib.services.jobs.plan_job import Plan, plan_job

MAX_EXACT_ROWS = 500  # rows; of more, as many are taken evenly, and their sum is scaled up
PREVIEW_ROWS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEstimate:
    """`estimated_from`: how many rows were looked at, if not all. Costs are None where a price is not known."""

    count: int
    estimated_from: int | None
    input_tokens: int
    output_tokens: int
    expected_cost: Nano | None
    max_cost: Nano | None
    duration_ms: Ms
    first: tuple[tuple[Row, Plan], ...]


def estimate_batch(ctx: BatchContext, caller: Caller, prepared: PreparedBatch) -> BatchEstimate:
    """Estimate each row, or an even sample; show the first as they would be asked.

    Raises:
        InvalidRequest: a row of the sample cannot be planned.
    """
    rows = prepared.rows
    count = len(rows)
    sample = [rows[at * count // MAX_EXACT_ROWS] for at in range(MAX_EXACT_ROWS)] if count > MAX_EXACT_ROWS else list(rows)
    first = sorted(rows, key=lambda row: row.number)[:PREVIEW_ROWS]
    plans = [_plan(ctx, caller, prepared, row) for row in sample]
    scale = count / len(sample)
    return BatchEstimate(
        count=count,
        estimated_from=len(sample) if len(sample) < count else None,
        input_tokens=round(sum(plan.estimate.input_tokens for plan in plans) * scale),
        output_tokens=round(sum(plan.estimate.output_tokens for plan in plans) * scale),
        expected_cost=_scaled((plan.estimate.expected_cost for plan in plans), scale),
        max_cost=_scaled((plan.estimate.max_cost for plan in plans), scale),
        duration_ms=_duration(prepared, sum(plan.estimate.duration_ms - plan.estimate.wait_ms for plan in plans) // len(plans)),
        first=tuple((row, _plan(ctx, caller, prepared, row)) for row in first),
    )


def _plan(ctx: BatchContext, caller: Caller, prepared: PreparedBatch, row: Row) -> Plan:
    return plan_job(ctx.job_type, ctx.prices, caller, submission_of(prepared.base, row, {}), 0, ctx.throughput_of)


def _scaled(costs: Iterable[Nano | None], scale: float) -> Nano | None:
    known = list(costs)
    return round(sum(cost for cost in known if cost is not None) * scale) if None not in known else None


def _duration(prepared: PreparedBatch, each: Ms) -> Ms:
    """The last group is released when all others were, and what runs at once is bounded by the terms, or else by the lane."""
    terms, lane, count = prepared.options, LANES[prepared.base.priority], len(prepared.rows)
    width = min(terms.parallel_limit or count, lane.max_concurrency * lane.batch_size)
    groups = ceil(count / (terms.batch_size or DEFAULT_GROUP_SIZE)) if terms.delay else 1
    released = round((groups - 1) * terms.delay * 1000)
    return lane.window * 1000 + max(released + each, ceil(count / width) * each)
