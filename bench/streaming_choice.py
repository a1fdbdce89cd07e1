"""What an event of OpenAI's stream costs, by the way it is read: `python -m bench.streaming_choice`.

One process (`source.py`) serves streams over loopback; each way reads them in a fresh process of its own. "paced" sends an event every
10 ms to each stream, about what a model does; "flat out" sends as fast as it can, so that one read brings many events. CPU is the reader's,
user and system, without its imports. Only the ratios mean something elsewhere. The numbers it gave are in docs/decisions/0003.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from chalicelib.adapters.aws.openai_credentials import Credentials
from chalicelib.adapters.openai.provider import OpenAIResponses
from chalicelib.ports import ModelRequest, TextDelta


def raw_asynchronous(url: str, streams: int) -> int:
    """(b) what Headrace does: raw bytes, its own decoder, one event loop."""
    provider = OpenAIResponses(lambda: Credentials("key", url))

    async def one() -> int:
        async with provider.stream(ModelRequest(model="gpt-4o-mini", prompt="hello")) as events:
            return sum([isinstance(seen, TextDelta) async for seen in events])

    async def all_of_them() -> int:
        return sum(await asyncio.gather(*(one() for _ in range(streams))))

    provider.client()
    with asyncio.Runner() as runner:  # one loop, because connections belong to it
        return _measured(lambda: runner.run(all_of_them()))


def typed_asynchronous(url: str, streams: int) -> int:
    """(a) `responses.create(stream=True)` of AsyncOpenAI."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="key", base_url=url, max_retries=0)

    async def one() -> int:
        stream = await client.responses.create(model="gpt-4o-mini", input="hello", stream=True)
        return sum([seen.type == "response.output_text.delta" async for seen in stream])

    async def all_of_them() -> int:
        return sum(await asyncio.gather(*(one() for _ in range(streams))))

    with asyncio.Runner() as runner:  # one loop, because connections belong to it
        return _measured(lambda: runner.run(all_of_them()))


def typed_threads(url: str, streams: int) -> int:
    """(c) `responses.create(stream=True)` of OpenAI, a thread for each stream."""
    from openai import OpenAI

    client = OpenAI(api_key="key", base_url=url, max_retries=0)

    def one(_: int) -> int:
        stream = client.responses.create(model="gpt-4o-mini", input="hello", stream=True)
        return sum(seen.type == "response.output_text.delta" for seen in stream)

    def all_of_them() -> int:
        with ThreadPoolExecutor(streams) as threads:
            return sum(threads.map(one, range(streams)))

    return _measured(all_of_them)


WAYS = {way.__name__: way for way in (raw_asynchronous, typed_asynchronous, typed_threads)}


def _measured(work: Callable[[], int]) -> int:
    work()  # imports, first connections, caches
    began, cpu = time.perf_counter(), time.process_time()
    seen = work()
    print(json.dumps({"events": seen, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - began}))
    return seen


def compare(streams: int, events: int, pace: float) -> None:
    command = [sys.executable, "-m", "bench.streaming_choice"]
    with subprocess.Popen([sys.executable, "-m", "bench.source"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/{events}/{pace:g}/v1"
        for way in WAYS:
            said = subprocess.run(
                [*command, "--way", way, "--url", url, "--streams", str(streams)], capture_output=True, text=True, check=True
            )
            seen = json.loads(said.stdout)
            per_event = 1e6 * seen["cpu"] / seen["events"]
            print(f"  {way:20} {per_event:7.1f} us CPU an event {seen['events'] / seen['wall']:9.0f} events/s")
        server.terminate()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--way", choices=WAYS)
    options.add_argument("--url", default="")
    options.add_argument("--streams", type=int, default=10)
    options.add_argument("--events", type=int, default=500)
    options.add_argument("--pace", type=float, default=100, help="events a second of each stream, where it is paced")
    given = options.parse_args()
    if given.way:
        WAYS[given.way](given.url, given.streams)
    else:
        for name, pace in ((f"paced, {given.pace:g} events a second to each", given.pace), ("flat out", 0.0)):
            print(f"{given.streams} streams of {given.events} events, {name}")
            compare(given.streams, given.events, pace)


if __name__ == "__main__":
    main()
