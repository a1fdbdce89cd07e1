"""What one job costs on AWS: requests, bytes, capacity units, and dollars for a million of them: `python -m bench cost`.

The whole path is lived through by `journey.py`; the units are computed from the items by DynamoDB's documented rules (`units.py`), the
prices stand in `prices.py`. OpenAI's own bill is not in it, nor what a stage costs while nothing happens (alarms, idle pollers).

Assumed, because nothing here can measure it:

* A busy lane: `STREAMS` jobs share an environment of the worker at a time. That is what full batches of ten come to, because the slowest
  of ten lasts 2.8 times the mean (simulated with lognormal durations). They share its lease as well, and as many are counted together. A
  quiet lane, one job to an environment, is shown beside it.
* Every other function takes `OTHER_SECONDS`, cold starts included, and each record of the change stream an invocation of its own.
* Lambda's own lines of log (START, END, REPORT) are 350 bytes an invocation.
"""

from __future__ import annotations

from math import ceil
from typing import Any

from bench import prices, units
from bench.findings import Finding, finding, table, verdicts
from bench.journey import SECONDS, TOKENS, Journey, travel
from bench.metering import Meter
from chalicelib.domain.queues.lanes import WORKER_MEMORY

STREAMS = 3.4  # jobs at a time in an environment of a busy lane
OTHER_SECONDS = 0.1
OTHER_MEMORY = {
    "api_handler": 512,
    "websocket_connect": 256,
    "websocket_message": 256,
    "websocket_disconnect": 256,
    "on_job_change": 256,
    "count_jobs": 512,
}  # MB
PLATFORM_LINES = 350  # bytes
FRAME_BYTES = 32 * 1024
MONTH = 30 * 86_400
AIM = {"dollars a million jobs, DynamoDB": 30.0, "dollars a million jobs, in all": 200.0}

Bill = dict[str, float]  # dollars a million jobs


def measure() -> Finding:
    """One job, its units and its bill, beside the two ways that suggest themselves."""
    journey = travel()
    busy, quiet = bill(journey, STREAMS), bill(journey, 1.0)
    per_token, log_per_token = bill(journey, STREAMS, frames=_frame_per_token(journey)), bill(journey, STREAMS)
    log_per_token["DynamoDB writes"] += _dollars(prices.WRITE, _log_units_per_token(journey.meter) - journey.meter.rows["log"].write_units)
    found = dict(zip(AIM, (dynamo_of(busy), sum(busy.values())), strict=True))
    return finding(
        "cost",
        f"a job of {TOKENS:,} tokens in {SECONDS:g} s, an 8 KB prompt, one WebSocket watcher, a POST and two GETs",
        AIM,
        found,
        assumptions={"streams in an environment": STREAMS, "worker MB": WORKER_MEMORY, "seconds of other functions": OTHER_SECONDS},
        kinds={name: vars(row) for name, row in journey.meter.rows.items()},
        requests=_requests(journey),
        dynamo_if={
            "index entries counted double in transactions": round(
                dynamo_of(busy) + _dollars(prices.WRITE, journey.meter.entries_together), 2
            ),
            "one job to an environment": round(dynamo_of(quiet), 2),
        },
        bills={
            "ours": _rounded(busy),
            "ours, quiet lane": _rounded(quiet),
            "a post per token": _rounded(per_token),
            "a log write per token": _rounded(log_per_token),
        },
    )


def bill(journey: Journey, streams: float, frames: list[int] | None = None) -> Bill:
    """Dollars for a million such jobs, with `streams` of them to an environment."""
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
        "logs": _dollars(prices.LOG_BYTE, journey.logged + invocations * PLATFORM_LINES),
        "bytes sent": _dollars(prices.SENT_BYTE, sum(frames) + journey.answered),
    }


def dynamo_of(bill_: Bill) -> float:
    """Requests to DynamoDB; what is kept is a line of its own, because how long is a policy."""
    return bill_["DynamoDB writes"] + bill_["DynamoDB reads"]


def show(found: Finding) -> str:
    """The tables of a finding."""
    kinds: list[tuple[str, ...]] = [
        (name, f"{row['requests']}", f"{row['sent']:,}", f"{row['read']:,}", f"{row['write_units']:g}", f"{row['read_units']:g}")
        for name, row in found["kinds"].items()
    ]
    sums = [sum(row[column] for row in found["kinds"].values()) for column in ("requests", "sent", "read", "write_units", "read_units")]
    kinds.append(("sum", f"{sums[0]}", f"{sums[1]:,}", f"{sums[2]:,}", f"{sums[3]:g}", f"{sums[4]:g}"))
    names = list(found["bills"])
    lines = [(line, *(f"{found['bills'][name][line]:.2f}" for name in names)) for line in found["bills"]["ours"]]
    lines.append(("sum", *(f"{sum(found['bills'][name].values()):.2f}" for name in names)))
    others = ", ".join(f"{count:g} {what}" for what, count in found["requests"].items())
    return "\n".join(
        [
            table(kinds, ("DynamoDB, one job", "requests", "bytes written", "bytes read", "write units", "read units")),
            f"  and {others}",
            "",
            table(lines, ("dollars a million jobs", *names)),
            verdicts(found),
            *(f"  DynamoDB, {what}: {dollars:.2f}" for what, dollars in found["dynamo_if"].items()),
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
    """The frames that are not tokens stay; each token's is as large as ours without most of its text."""
    text = len(_text_of(TOKENS)) / len(journey.frames)
    small = round(sum(journey.frames) / len(journey.frames) - text + len(_text_of(1)))
    return [small] * TOKENS


def _log_units_per_token(meter: Meter) -> float:
    """A put of the smallest chunk there was, for each token."""
    pages = [(kept, item) for place, (kept, item) in meter.items.items() if place[0] == "job_data" and "c#" in place[-1]]
    least, smallest = min(pages, key=lambda page: units.item_bytes(page[1]))
    return TOKENS * float(units.write_units(least, None, smallest))


def _byte_months(journey: Journey) -> float:
    """How much is kept for how long: until each item's own end."""
    now = journey.ended_at // 1000
    kept = [(units.stored_bytes(where, item), int(item["ttl"]["N"]) - now) for where, item in journey.meter.items.values() if "ttl" in item]
    return sum(size * max(0, seconds) / MONTH for size, seconds in kept)


def _text_of(count: int) -> str:
    from bench.prose import tokens

    return "".join(tokens(count))


def _dollars(price: prices.Price, count: float) -> float:
    return price.dollars * count * prices.MILLION


def _rounded(bill_: Bill) -> dict[str, Any]:
    return {line: round(dollars, 3) for line, dollars in bill_.items()}
