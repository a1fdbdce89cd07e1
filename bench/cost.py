"""Compute what one job costs on AWS: `python -m bench cost`.

The result has requests, bytes, capacity units, and dollars per million jobs.

`journey.py` runs the job and counts its requests. Capacity units are computed from the items by
DynamoDB's documented rules (`units.py`); prices are in `prices.py`. OpenAI's charges are not
included, nor the fixed costs of a stage (alarms, idle pollers).

Assumptions that are not measured here:

* Busy lane: on average `STREAMS` jobs share a worker environment, its lease and the writes of the
  counters. With full batches of ten, 3.4 jobs run on average, because the slowest of ten lasts 2.8
  times the mean (simulated with lognormal durations). A quiet lane, with one job per environment,
  is shown too.
* Every other function takes `OTHER_SECONDS`, cold starts included, and each record of the change
  stream is one invocation.
* Lambda's own log lines (START, END, REPORT) are 350 bytes per invocation.
"""

from __future__ import annotations

from math import ceil
from typing import Any

from bench import prices, units
from bench.findings import Finding, finding, table, verdicts
from bench.journey import SECONDS, TOKENS, Journey, run_journey
from bench.metering import Meter
from chalicelib.domain.queues.lanes import WORKER_MEMORY

STREAMS = 3.4  # concurrent jobs in a worker environment of a busy lane
OTHER_SECONDS = 0.1
OTHER_MEMORY = {
    "api_handler": 512,
    "websocket_connect": 256,
    "websocket_message": 256,
    "websocket_disconnect": 256,
    "on_job_change": 1024,
    "count_jobs": 512,
}  # MB
PLATFORM_LOG_BYTES = 350  # per invocation
FRAME_BYTES = 32 * 1024
MONTH = 30 * 86_400  # seconds
AIM = {"dollars a million jobs, DynamoDB": 30.0, "dollars a million jobs, in all": 200.0}

Bill = dict[str, float]  # dollars per million jobs, by item of the bill


def measure() -> Finding:
    """Measure one job and compute its bill, and the bills of two simpler designs for comparison."""
    journey = run_journey()
    busy, quiet = bill(journey, STREAMS), bill(journey, 1.0)
    per_token, log_per_token = bill(journey, STREAMS, frames=_frame_per_token(journey)), bill(journey, STREAMS)
    log_per_token["DynamoDB writes"] += _dollars(prices.WRITE, _log_units_per_token(journey.meter) - journey.meter.rows["log"].write_units)
    value = dict(zip(AIM, (dynamodb_total(busy), sum(busy.values())), strict=True))
    return finding(
        "cost",
        f"a job of {TOKENS:,} tokens in {SECONDS:g} s, an 8 KB prompt, one WebSocket subscriber, a POST and two GETs",
        AIM,
        value,
        assumptions={"streams in an environment": STREAMS, "worker MB": WORKER_MEMORY, "seconds of other functions": OTHER_SECONDS},
        kinds={name: vars(row) for name, row in journey.meter.rows.items()},
        requests=_requests(journey),
        dynamodb_if={
            "index entries counted double in transactions": round(
                dynamodb_total(busy) + _dollars(prices.WRITE, journey.meter.transacted_index_units), 2
            ),
            "one job to an environment": round(dynamodb_total(quiet), 2),
        },
        bills={
            "ours": _rounded(busy),
            "ours, quiet lane": _rounded(quiet),
            "a post per token": _rounded(per_token),
            "a log write per token": _rounded(log_per_token),
        },
    )


def bill(journey: Journey, streams: float, frames: list[int] | None = None) -> Bill:
    """Return the bill for a million such jobs, `streams` of them in each worker environment."""
    meter, frames = journey.meter, journey.frames if frames is None else frames
    shared = (meter.rows["lease"].write_units + meter.rows["counters"].write_units) * (1 - 1 / streams)
    writes = sum(row.write_units for row in meter.rows.values()) - shared
    worker = journey.worker_seconds / streams * WORKER_MEMORY / 1024
    others = sum(count * OTHER_SECONDS * OTHER_MEMORY[name] / 1024 for name, count in journey.invocations.items() if name in OTHER_MEMORY)
    invocations = sum(count for name, count in journey.invocations.items() if name in OTHER_MEMORY) + 1 / streams
    return {
        "DynamoDB writes": _dollars(prices.WRITE, writes),
        "DynamoDB reads": _dollars(prices.READ, sum(row.read_units for row in meter.rows.values())),
        "DynamoDB storage": _dollars(prices.STORAGE, _byte_months(journey)),
        "WebSocket frames": _dollars(prices.FRAME, sum(ceil(size / FRAME_BYTES) for size in frames) + journey.messages_in),
        "WebSocket minutes": _dollars(prices.CONNECTED, ceil(journey.connected_seconds / 60)),
        "worker": _dollars(prices.GB_SECOND, worker),
        "other functions": _dollars(prices.GB_SECOND, others) + _dollars(prices.INVOCATION, invocations),
        "REST calls": _dollars(prices.REST_CALL, journey.calls),
        "SQS requests": _dollars(prices.SQS_REQUEST, meter.sqs.total()),
        "S3 puts": _dollars(prices.S3_PUT, meter.s3_puts),
        "logs": _dollars(prices.LOG_BYTE, journey.log_bytes + invocations * PLATFORM_LOG_BYTES),
        "bytes sent": _dollars(prices.SENT_BYTE, sum(frames) + journey.response_bytes),
    }


def dynamodb_total(bill_: Bill) -> float:
    """Return the cost of requests to DynamoDB, without storage, which depends on retention."""
    return bill_["DynamoDB writes"] + bill_["DynamoDB reads"]


def show(found: Finding) -> str:
    """Format the finding as tables."""
    kinds: list[tuple[str, ...]] = [
        (name, f"{row['requests']}", f"{row['sent']:,}", f"{row['read']:,}", f"{row['write_units']:g}", f"{row['read_units']:g}")
        for name, row in found["kinds"].items()
    ]
    sums = [sum(row[column] for row in found["kinds"].values()) for column in ("requests", "sent", "read", "write_units", "read_units")]
    kinds.append(("sum", f"{sums[0]}", f"{sums[1]:,}", f"{sums[2]:,}", f"{sums[3]:g}", f"{sums[4]:g}"))
    names = list(found["bills"])
    lines = [(line, *(f"{found['bills'][name][line]:.2f}" for name in names)) for line in found["bills"]["ours"]]
    lines.append(("sum", *(f"{sum(found['bills'][name].values()):.2f}" for name in names)))
    others = ", ".join(f"{count:g} {name}" for name, count in found["requests"].items())
    return "\n".join(
        [
            table(kinds, ("DynamoDB, one job", "requests", "bytes written", "bytes read", "write units", "read units")),
            f"  and {others}",
            "",
            table(lines, ("dollars a million jobs", *names)),
            verdicts(found),
            *(f"  DynamoDB, {case}: {dollars:.2f}" for case, dollars in found["dynamodb_if"].items()),
        ]
    )


def _requests(journey: Journey) -> dict[str, float]:
    return {
        "frames posted": len(journey.frames),
        "bytes in frames": sum(journey.frames),
        "SQS requests": journey.meter.sqs.total(),
        "S3 puts": journey.meter.s3_puts,
        "REST calls": journey.calls,
        "invocations": journey.invocations.total(),
    }


def _frame_per_token(journey: Journey) -> list[int]:
    """Return the frames of a design that posts each token.

    Each is the average frame with the text of one token.
    """
    text = len(_text_of(TOKENS)) / len(journey.frames)
    size = round(sum(journey.frames) / len(journey.frames) - text + len(_text_of(1)))
    return [size] * TOKENS


def _log_units_per_token(meter: Meter) -> float:
    """Return the write units of a design that puts a chunk for each token.

    Each is as large as the smallest measured chunk.
    """
    chunks = [(schema, item) for address, (schema, item) in meter.items.items() if address[0] == "job_data" and "c#" in address[-1]]
    job_data, smallest = min(chunks, key=lambda chunk: units.item_bytes(chunk[1]))
    return TOKENS * float(units.write_units(job_data, None, smallest))


def _byte_months(journey: Journey) -> float:
    """Return the storage of all items until each one's TTL."""
    now = journey.ended_at // 1000
    stored = [
        (units.stored_bytes(schema, item), int(item["ttl"]["N"]) - now) for schema, item in journey.meter.items.values() if "ttl" in item
    ]
    return sum(size * max(0, seconds) / MONTH for size, seconds in stored)


def _text_of(count: int) -> str:
    from bench.prose import tokens

    return "".join(tokens(count))


def _dollars(price: prices.Price, count: float) -> float:
    return price.dollars * count * prices.MILLION


def _rounded(bill_: Bill) -> dict[str, Any]:
    return {line: round(dollars, 3) for line, dollars in bill_.items()}
