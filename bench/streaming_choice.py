"""What an event of OpenAI's stream costs, by the way it is read: `python -m bench.streaming_choice`.

One process serves streams over loopback; each way reads them in a fresh process of its own. "paced" sends an event every 10 ms to each
stream, about what a model does; "flat out" sends as fast as it can, so that one read brings many events. CPU is the reader's, user and
system, without its imports. Only the ratios mean something elsewhere. The numbers it gave are in docs/decisions/0003.
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

from chalicelib.adapters.openai_responses import OpenAIResponses
from chalicelib.adapters.secrets import Credentials
from chalicelib.ports import Delta, ModelRequest

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
RESPONSE = {
    "id": "resp_68f0a1b2c3d4e5f60718293a4b5c6d7e",
    "object": "response",
    "created_at": 1760000000,
    "model": "gpt-4o-mini",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}


def event(kind: str, number: int, **fields: object) -> bytes:
    data = json.dumps({"type": kind, "sequence_number": number, **fields}, separators=(",", ":"))
    text = f"event: {kind}\ndata: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


async def serve(events: int, pause: float) -> None:
    place = {"item_id": "msg_68f0a1b2c3d4e5f60718293a", "output_index": 0, "content_index": 0}
    deltas = [event("response.output_text.delta", n, **place, delta=" word", logprobs=[]) for n in range(events)]
    usage = {"input_tokens": 9, "output_tokens": events, "total_tokens": 9 + events}
    end = event("response.completed", events, response={**RESPONSE, "status": "completed", "usage": usage})

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(HEAD + event("response.created", 0, response={**RESPONSE, "status": "in_progress"}))
        for delta in deltas:
            writer.write(delta)
            await asyncio.sleep(pause)
            await writer.drain()
        writer.write(end + b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def raw_asynchronous(url: str, streams: int) -> int:
    """(b) what Headrace does: raw bytes, its own decoder, one event loop."""
    provider = OpenAIResponses(lambda: Credentials("key", url))

    async def one() -> int:
        async with provider.stream(ModelRequest(model="gpt-4o-mini", prompt="hello")) as events:
            return sum([isinstance(seen, Delta) async for seen in events])

    async def all_of_them() -> int:
        return sum(await asyncio.gather(*(one() for _ in range(streams))))

    provider.client()
    return _measured(lambda: asyncio.run(all_of_them()))


def typed_asynchronous(url: str, streams: int) -> int:
    """(a) `responses.create(stream=True)` of AsyncOpenAI."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="key", base_url=url, max_retries=0)

    async def one() -> int:
        stream = await client.responses.create(model="gpt-4o-mini", input="hello", stream=True)
        return sum([seen.type == "response.output_text.delta" async for seen in stream])

    async def all_of_them() -> int:
        return sum(await asyncio.gather(*(one() for _ in range(streams))))

    return _measured(lambda: asyncio.run(all_of_them()))


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


def compare(streams: int, events: int, pause: float) -> None:
    command = [sys.executable, "-m", "bench.streaming_choice"]
    with subprocess.Popen(
        [*command, "--serve", "--events", str(events), "--pause", str(pause)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
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
    options.add_argument("--serve", action="store_true")
    options.add_argument("--way", choices=WAYS)
    options.add_argument("--url", default="")
    options.add_argument("--streams", type=int, default=10)
    options.add_argument("--events", type=int, default=500)
    options.add_argument("--pause", type=float, default=0.01)
    given = options.parse_args()
    if given.serve:
        asyncio.run(serve(given.events, given.pause))
    elif given.way:
        WAYS[given.way](given.url, given.streams)
    else:
        for name, pause in (("paced, an event every 10 ms to each", given.pause), ("flat out", 0.0)):
            print(f"{given.streams} streams of {given.events} events, {name}")
            compare(given.streams, given.events, pause)


if __name__ == "__main__":
    main()
