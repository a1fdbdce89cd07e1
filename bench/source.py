"""Serve model responses on the loopback; print the port: `python -m bench.source`.

`POST /<tokens>/<pace>/v1/responses` streams a well-formed response of `tokens` tokens, `pace` of
them a second; with pace 0 as fast as possible. It runs in its own process, so that only the reader
is measured. The bytes of a response are built before they are sent, so that the reader is the
bottleneck.
"""

from __future__ import annotations

import asyncio
import json
from functools import cache
from typing import Any

from bench.prose import tokens

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
EVENTS_PER_WRITE = 64  # if there is no pace
RESPONSE: dict[str, Any] = {
    "id": "resp_68f0a1b2c3d4e5f60718293a4b5c6d7e",
    "object": "response",
    "created_at": 1760000000,
    "model": "gpt-4o-mini-2024-07-18",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
CONTENT_POSITION = {"item_id": "msg_68f0a1b2c3d4e5f60718293a", "output_index": 0, "content_index": 0}


def event(kind: str, number: int, **fields: object) -> bytes:
    """Return one event as a chunk of HTTP's chunked encoding."""
    data = json.dumps({"type": kind, "sequence_number": number, **fields}, separators=(",", ":"))
    text = f"event: {kind}\ndata: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


@cache
def answer(count: int) -> tuple[bytes, list[bytes], bytes]:
    """Return the events of a response: those before the text, a delta per token, those after it.

    Like OpenAI's, the last events repeat the whole text.
    """
    pieces = tokens(count)
    message = {"id": CONTENT_POSITION["item_id"], "type": "message", "role": "assistant"}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": "".join(pieces)}
    done = {**message, "status": "completed", "content": [part]}
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": count,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 9 + count,
    }
    started = {**RESPONSE, "status": "in_progress", "output": []}
    before = [
        event("response.created", 0, response=started),
        event("response.in_progress", 1, response=started),
        event("response.output_item.added", 2, output_index=0, item={**message, "status": "in_progress", "content": []}),
        event("response.content_part.added", 3, **CONTENT_POSITION, part={**part, "text": ""}),
    ]
    deltas = [event("response.output_text.delta", 4 + at, **CONTENT_POSITION, delta=piece, logprobs=[]) for at, piece in enumerate(pieces)]
    after = [
        event("response.output_text.done", count + 4, **CONTENT_POSITION, text=part["text"], logprobs=[]),
        event("response.content_part.done", count + 5, **CONTENT_POSITION, part=part),
        event("response.output_item.done", count + 6, output_index=0, item=done),
        event("response.completed", count + 7, response={**RESPONSE, "status": "completed", "output": [done], "usage": usage}),
    ]
    return b"".join(before), deltas, b"".join(after)


async def serve() -> None:
    """Print the port and serve until terminated."""
    server = await asyncio.start_server(_handle_connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _handle_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            _, count, pace, *_ = head.split(b" ")[1].decode().split("/")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
            await _stream(writer, int(count), float(pace))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _stream(writer: asyncio.StreamWriter, count: int, pace: float) -> None:
    before, deltas, after = answer(count)
    writer.write(HEAD + before)
    clock = asyncio.get_running_loop().time
    started_at = clock()
    step = 1 if pace else EVENTS_PER_WRITE
    for at in range(0, count, step):
        if pace:
            await asyncio.sleep(max(0.0, started_at + at / pace - clock()))
        writer.write(b"".join(deltas[at : at + step]))
        await writer.drain()
    writer.write(after + END)
    await writer.drain()


if __name__ == "__main__":
    asyncio.run(serve())
