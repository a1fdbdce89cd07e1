"""Estimate the cost and the duration of a batch before it is submitted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.batches.row import Row
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.jobs.queue_routing import queue_for
from chalicelib.domain.queues.lanes import JOB_QUEUES
from chalicelib.domain.units import Ms, Nano
from chalicelib.services.batches.context import BatchContext
from chalicelib.services.batches.release_rows import submission_of
from chalicelib.services.batches.submit_batch import PreparedBatch
from chalicelib.services.jobs.plan_job import Plan, plan_job

MAX_EXACT_ROWS = 500  # with more rows, an even sample of this size is estimated and scaled up
PREVIEW_ROWS = 5  # rows that are shown with their prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEstimate:
    """The estimate of a batch."""

    count: int  # rows
    estimated_from: int | None  # rows in the sample; None: all rows were estimated
    input_tokens: int
    output_tokens: int
    expected_cost: Nano | None  # None: a price is unknown
    max_cost: Nano | None  # None: a price is unknown
    duration_ms: Ms
    first: tuple[tuple[Row, Plan], ...]  # the first rows of the input, for a preview


def estimate_batch(ctx: BatchContext, caller: Caller, prepared: PreparedBatch) -> BatchEstimate:
    """Estimate all rows, or an even sample, and plan the first rows for a preview.

    Raises:
        InvalidRequest: a row of the sample cannot be planned.
    """
    rows = prepared.rows
    count = len(rows)
    sample = [rows[index * count // MAX_EXACT_ROWS] for index in range(MAX_EXACT_ROWS)] if count > MAX_EXACT_ROWS else list(rows)
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
    values = list(costs)
    return round(sum(cost for cost in values if cost is not None) * scale) if None not in values else None


def _duration(prepared: PreparedBatch, row_ms: Ms) -> Ms:
    """Return the expected duration, by the pauses between groups or by the concurrency.

    The options of the batch limit the concurrency, or else the queue of its rows.
    """
    options, count = prepared.options, len(prepared.rows)
    queue = JOB_QUEUES[queue_for(prepared.base.priority, is_task=prepared.model == NO_MODEL)]
    width = min(options.parallel_limit or count, queue.max_concurrency * queue.batch_size)
    last_release = round(options.release_seconds(count) * 1000)
    return queue.window * 1000 + max(last_release + row_ms, ceil(count / width) * row_ms)
