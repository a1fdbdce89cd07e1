"""Measure tokens per second: `python -m bench throughput`.

The source sends as fast as possible.

* Bare SDK loop: AsyncOpenAI, `responses.create(stream=True)`; reads the text of each typed event
  and does nothing else.
* A post per token: the bare loop, and each token is posted to one WebSocket connection before the
  next is read.
* Headrace: a whole invocation of a worker, from the wake-up to the final frame: claim, lease, log,
  result and record, with 0, 1 or 10 subscribers. Headrace's reader is also measured alone, to show
  what the rest of the worker adds.

The variants take turns in one process, so that other load on the machine affects all of them. The
source and AWS are local servers in their own processes; PynamoDB, botocore and the SDK do their
real work here. A model sends 50 to 150 tokens a second, so the figures show how much capacity of a
worker is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from bench.findings import Finding, finding, table, verdicts
from bench.prose import POINTS_PER_TOKEN
from bench.rig import MODEL, Rig, open_rig
from chalicelib import bootstrap
from chalicelib.domain.streaming.frames import encode
from chalicelib.domain.streaming.frames import tokens as token_frame
from chalicelib.ports import ModelRequest, TextDelta

TOKENS, RELAYED_TOKENS, ROUNDS = 20_000, 1_000, 5
SUBSCRIBERS = (0, 1, 10)
BARE, RELAY, READER = "bare SDK loop", "a post per token", "Headrace's reader alone"
AIM = {f"{subscribers} subscribers, relative to the bare loop": 0.95 for subscribers in SUBSCRIBERS}


def measure() -> Finding:
    """Run the variants in turn, `ROUNDS` times, and compare the medians."""
    with open_rig() as rig:
        variants: dict[str, Callable[[], tuple[float, float]]] = {
            BARE: _bare_loop(rig),
            RELAY: _relay(rig),
            READER: _reader(rig),
            **{_headrace_name(subscribers): _headrace(rig, subscribers) for subscribers in SUBSCRIBERS},
        }
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
        for number in range(ROUNDS + 1):
            for name, run in variants.items():
                sample = run()
                if number:  # the first round is for imports, connections and caches
                    samples[name].append(sample)
    rates = {name: median(rate for rate, _ in results) for name, results in samples.items()}
    return finding(
        "throughput",
        f"tokens a second, {TOKENS:,} tokens as fast as possible, whole invocations, medians of {ROUNDS}",
        AIM,
        {aim: rates[_headrace_name(subscribers)] / rates[BARE] for aim, subscribers in zip(AIM, SUBSCRIBERS, strict=True)},
        at_least=True,
        tokens_per_second={name: round(rate) for name, rate in rates.items()},
        best={name: round(max(rate for rate, _ in results)) for name, results in samples.items()},
        posts={name: round(median(posts for _, posts in results)) for name, results in samples.items()},
    )


def show(found: Finding) -> str:
    """Format the finding as a table."""
    rates, bare = found["tokens_per_second"], found["tokens_per_second"][BARE]
    rows: list[tuple[str, ...]] = [
        (name, f"{rate:,}", f"{found['best'][name]:,}", f"{rate / bare:.2f}", f"{found['posts'][name]:,}") for name, rate in rates.items()
    ]
    return "\n".join([table(rows, ("", "tokens/s", "best", "relative to the bare loop", "posts")), verdicts(found)])


def _bare_loop(rig: Rig, count: int = TOKENS, on_delta: Callable[[str], None] | None = None) -> Callable[[], tuple[float, float]]:
    """Return the function that runs the bare loop and returns tokens per second, and posts."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="key", base_url=rig.model_url(count), max_retries=0)

    async def read() -> None:
        deltas: list[str] = []
        async for event in await client.responses.create(model=MODEL, input="hello", stream=True):
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
                if on_delta:
                    on_delta(event.delta)
        assert len("".join(deltas)) == count * POINTS_PER_TOKEN

    return lambda: (count / _seconds(lambda: rig.loop.run(read())), count if on_delta else 0)


def _relay(rig: Rig) -> Callable[[], tuple[float, float]]:
    """Post with Headrace's socket adapter, which uses botocore's client like any other relay."""
    sockets = bootstrap.container().sockets

    def post(delta: str) -> None:
        sockets.post(rig.cloud_url, "relayed", encode(token_frame("job_1", 1, 2, 0, delta, 0, 1, 1.0)))

    return _bare_loop(rig, RELAYED_TOKENS, post)


def _reader(rig: Rig) -> Callable[[], tuple[float, float]]:
    async def read() -> None:
        vars(bootstrap.container())["base_url"] = rig.model_url(TOKENS)
        async with bootstrap.container().provider.stream(ModelRequest(model=MODEL, prompt="hello")) as events:
            texts = [event.text async for event in events if isinstance(event, TextDelta)]
        assert len("".join(texts)) == TOKENS * POINTS_PER_TOKEN

    return lambda: (TOKENS / _seconds(lambda: rig.loop.run(read())), 0)


def _headrace(rig: Rig, subscribers: int) -> Callable[[], tuple[float, float]]:
    def run() -> tuple[float, float]:
        job = rig.submit(subscribers)
        seconds = rig.run([job], TOKENS)
        return TOKENS / seconds, rig.check(job, subscribers, TOKENS * POINTS_PER_TOKEN)

    return run


def _headrace_name(subscribers: int) -> str:
    return f"Headrace, {subscribers} subscribers"


def _seconds(call: Callable[[], None]) -> float:
    started_at = time.perf_counter()
    call()
    return time.perf_counter() - started_at
