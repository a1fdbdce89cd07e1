"""Compare three ways to read OpenAI's stream: `python -m bench.streaming_choice`.

The measure is the processor time per event.

One process (`source.py`) serves streams over loopback; each variant reads them in a new process.
"paced" sends an event every 10 ms to each stream, about as fast as a model; "flat out" sends as
fast as possible, so that one read brings many events. The processor time is that of the reading
process, user and system, without its imports. Only the ratios are valid on other machines. Results
are in docs/decisions/0003.
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
    """What Headrace does: raw bytes, its own decoder, one event loop."""
    provider = OpenAIResponses(lambda: Credentials("key", url))

    async def read() -> int:
        async with provider.stream(ModelRequest(model="gpt-4o-mini", prompt="hello")) as events:
            return sum([isinstance(event, TextDelta) async for event in events])

    async def read_all() -> int:
        return sum(await asyncio.gather(*(read() for _ in range(streams))))

    provider.client()
    with asyncio.Runner() as runner:  # both runs use one loop, because the connections belong to it
        return _print_measurement(lambda: runner.run(read_all()))


def typed_asynchronous(url: str, streams: int) -> int:
    """`responses.create(stream=True)` of AsyncOpenAI, one event loop."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="key", base_url=url, max_retries=0)

    async def read() -> int:
        stream = await client.responses.create(model="gpt-4o-mini", input="hello", stream=True)
        return sum([event.type == "response.output_text.delta" async for event in stream])

    async def read_all() -> int:
        return sum(await asyncio.gather(*(read() for _ in range(streams))))

    with asyncio.Runner() as runner:  # both runs use one loop, because the connections belong to it
        return _print_measurement(lambda: runner.run(read_all()))


def typed_threads(url: str, streams: int) -> int:
    """`responses.create(stream=True)` of OpenAI, a thread for each stream."""
    from openai import OpenAI

    client = OpenAI(api_key="key", base_url=url, max_retries=0)

    def read(_: int) -> int:
        stream = client.responses.create(model="gpt-4o-mini", input="hello", stream=True)
        return sum(event.type == "response.output_text.delta" for event in stream)

    def read_all() -> int:
        with ThreadPoolExecutor(streams) as threads:
            return sum(threads.map(read, range(streams)))

    return _print_measurement(read_all)


VARIANTS = {variant.__name__: variant for variant in (raw_asynchronous, typed_asynchronous, typed_threads)}


def _print_measurement(read: Callable[[], int]) -> int:
    """Read once to warm up, then measure the second run and print it as JSON."""
    read()  # imports, first connections, caches
    started_at, cpu = time.perf_counter(), time.process_time()
    events = read()
    print(json.dumps({"events": events, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - started_at}))
    return events


def compare(streams: int, events: int, pace: float) -> None:
    """Run all variants on the same streams and print a line for each."""
    command = [sys.executable, "-m", "bench.streaming_choice"]
    with subprocess.Popen([sys.executable, "-m", "bench.source"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/{events}/{pace:g}/v1"
        for variant in VARIANTS:
            process = subprocess.run(
                [*command, "--variant", variant, "--url", url, "--streams", str(streams)], capture_output=True, text=True, check=True
            )
            measured = json.loads(process.stdout)
            per_event = 1e6 * measured["cpu"] / measured["events"]
            print(f"  {variant:20} {per_event:7.1f} us CPU an event {measured['events'] / measured['wall']:9.0f} events/s")
        server.terminate()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--variant", choices=VARIANTS)
    options.add_argument("--url", default="")
    options.add_argument("--streams", type=int, default=10)
    options.add_argument("--events", type=int, default=500)
    options.add_argument("--pace", type=float, default=100, help="events a second of each paced stream")
    arguments = options.parse_args()
    if arguments.variant:
        VARIANTS[arguments.variant](arguments.url, arguments.streams)
    else:
        for name, pace in ((f"paced, {arguments.pace:g} events a second to each", arguments.pace), ("flat out", 0.0)):
            print(f"{arguments.streams} streams of {arguments.events} events, {name}")
            compare(arguments.streams, arguments.events, pace)


if __name__ == "__main__":
    main()
