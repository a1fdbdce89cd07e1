"""Tokens a second from a source that sends flat out: `python -m bench throughput`.

(a) The bare loop: AsyncOpenAI, `responses.create(stream=True)`, the text of each typed event, and nothing else.
(b) A relay: the bare loop, and each token posted to one WebSocket connection before the next is read.
(c) Ours: a worker's whole run, from the wake-up to the end that all have been told: claim, lease, log, result, record, and 0, 1 or 10
watchers. Beside it, how fast our reader is alone, which says what the engine itself adds.

All in one process in turn, so that a busy machine slows all alike. Source and AWS are processes of their own on the loopback; PynamoDB,
botocore and the SDK do all their work here. A model sends 50 to 150 tokens a second: these numbers are how much of a worker is left over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from bench.findings import Finding, finding, table, verdicts
from bench.prose import POINTS_PER_TOKEN
from bench.rig import MODEL, Rig, rig
from chalicelib import bootstrap
from chalicelib.domain.streaming.frames import encode
from chalicelib.domain.streaming.frames import tokens as token_frame
from chalicelib.ports import ModelRequest, TextDelta

TOKENS, RELAYED, ROUNDS = 20_000, 1_000, 5
WATCHERS = (0, 1, 10)
BARE, RELAY, READER = "bare SDK loop", "a post per token", "our reader alone"
AIM = {f"ours, {watchers} watchers, to the bare loop": 0.95 for watchers in WATCHERS}


def measure() -> Finding:
    """Every way in turn, `ROUNDS` times; ratios of medians."""
    with rig() as built:
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            BARE: _bare(built),
            RELAY: _relay(built),
            READER: _reader(built),
            **{_ours_name(watchers): _ours(built, watchers) for watchers in WATCHERS},
        }
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for turn in range(ROUNDS + 1):
            for name, way in ways.items():
                result = way()
                if turn:  # the first is for imports, connections and caches
                    seen[name].append(result)
    rates = {name: median(rate for rate, _ in results) for name, results in seen.items()}
    return finding(
        "throughput",
        f"tokens a second, {TOKENS:,} tokens flat out, whole runs, medians of {ROUNDS}",
        AIM,
        {aim: rates[_ours_name(watchers)] / rates[BARE] for aim, watchers in zip(AIM, WATCHERS, strict=True)},
        at_least=True,
        tokens_per_second={name: round(rate) for name, rate in rates.items()},
        best={name: round(max(rate for rate, _ in results)) for name, results in seen.items()},
        posts={name: round(median(posts for _, posts in results)) for name, results in seen.items()},
    )


def show(found: Finding) -> str:
    rates, bare = found["tokens_per_second"], found["tokens_per_second"][BARE]
    rows: list[tuple[str, ...]] = [
        (name, f"{rate:,}", f"{found['best'][name]:,}", f"{rate / bare:.2f}", f"{found['posts'][name]:,}") for name, rate in rates.items()
    ]
    return "\n".join([table(rows, ("", "tokens/s", "best", "to the bare loop", "posts")), verdicts(found)])


def _bare(built: Rig, count: int = TOKENS, each: Callable[[str], None] | None = None) -> Callable[[], tuple[float, float]]:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="key", base_url=built.model_url(count), max_retries=0)

    async def read() -> None:
        said: list[str] = []
        async for event in await client.responses.create(model=MODEL, input="hello", stream=True):
            if event.type == "response.output_text.delta":
                said.append(event.delta)
                if each:
                    each(event.delta)
        assert len("".join(said)) == count * POINTS_PER_TOKEN

    return lambda: (count / _seconds(lambda: built.loop.run(read())), count if each else 0)


def _relay(built: Rig) -> Callable[[], tuple[float, float]]:
    """By our own adapter of sockets, which is botocore's client: what everybody has."""
    sockets = bootstrap.container().sockets

    def post(delta: str) -> None:
        sockets.post(built.cloud_url, "relayed", encode(token_frame("job_1", 1, 2, 0, delta, 0, 1, 1.0)))

    return _bare(built, RELAYED, post)


def _reader(built: Rig) -> Callable[[], tuple[float, float]]:
    async def read() -> None:
        vars(bootstrap.container())["base_url"] = built.model_url(TOKENS)
        async with bootstrap.container().provider.stream(ModelRequest(model=MODEL, prompt="hello")) as events:
            said = [event.text async for event in events if isinstance(event, TextDelta)]
        assert len("".join(said)) == TOKENS * POINTS_PER_TOKEN

    return lambda: (TOKENS / _seconds(lambda: built.loop.run(read())), 0)


def _ours(built: Rig, watchers: int) -> Callable[[], tuple[float, float]]:
    def run() -> tuple[float, float]:
        job = built.submit(watchers)
        seconds = built.run([job], TOKENS)
        return TOKENS / seconds, built.check(job, watchers, TOKENS * POINTS_PER_TOKEN)

    return run


def _ours_name(watchers: int) -> str:
    return f"ours, {watchers} watchers"


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
