"""Serve a minimal AWS on the loopback; print the port: `python -m bench.cloud`.

It stores items and answers reads, so that PynamoDB and botocore do their real work in the measured
process. It checks no conditions, because there are no competing writers. It counts the frames that
are posted to connections. moto would use the processor time of the measured process, so this runs
in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from typing import Any
from urllib.parse import unquote

from infra.tables import TABLES

KEYS = {table.name: (table.hash_key, table.range_key) for table in TABLES}
ACCOUNT = b"<GetCallerIdentityResult><Account>123456789012</Account></GetCallerIdentityResult>"
IDENTITY = b"<GetCallerIdentityResponse>%s</GetCallerIdentityResponse>" % ACCOUNT
SET = re.compile(r"(#\d+) = (:\d+)")
Item = dict[str, Any]


class Tables:
    """Items by table and key."""

    def __init__(self) -> None:
        self._items: defaultdict[str, dict[tuple[str, str], Item]] = defaultdict(dict)

    def answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request of DynamoDB's API, with one of the operations below."""
        return getattr(self, f"_{operation}")(request)  # type: ignore[no-any-return]

    def _PutItem(self, request: Item) -> Item:  # noqa: N802 - the name of the operation
        self._items[request["TableName"]][_key(request["TableName"], request["Item"])] = request["Item"]
        return {}

    def _TransactWriteItems(self, request: Item) -> Item:  # noqa: N802
        for write in request["TransactItems"]:
            if "Update" in write:
                self._UpdateItem(write["Update"])
            else:
                self._PutItem(write["Put"])
        return {}

    def _UpdateItem(self, request: Item) -> Item:  # noqa: N802
        """Apply `SET #0 = :0, ...`, for `subscribers_version`. Nobody reads what others change."""
        item = self._items[request["TableName"]].setdefault(_key(request["TableName"], request["Key"]), dict(request["Key"]))
        for name, value in SET.findall(request["UpdateExpression"]):
            item[request["ExpressionAttributeNames"][name]] = request["ExpressionAttributeValues"][value]
        return {}

    def _DeleteItem(self, request: Item) -> Item:  # noqa: N802
        self._items[request["TableName"]].pop(_key(request["TableName"], request["Key"]), None)
        return {}

    def _GetItem(self, request: Item) -> Item:  # noqa: N802
        item = self._items[request["TableName"]].get(_key(request["TableName"], request["Key"]))
        return {"Item": item} if item else {}

    def _BatchGetItem(self, request: Item) -> Item:  # noqa: N802
        responses = {
            name: [item for key in keys["Keys"] if (item := self._items[name].get(_key(name, key)))]
            for name, keys in request["RequestItems"].items()
        }
        return {"Responses": responses, "UnprocessedKeys": {}}

    def _Query(self, request: Item) -> Item:  # noqa: N802
        """Return a partition in order of the sort key: all of it, a prefix, or a range."""
        values = [value["S"] for _, value in sorted(request["ExpressionAttributeValues"].items())]
        if len(values) == 3 and "begins_with" not in request["KeyConditionExpression"]:
            values[1:] = sorted(values[1:])
        wanted, *bounds = values
        rows = sorted((sort, item) for (partition, sort), item in self._items[request["TableName"]].items() if partition == wanted)
        if len(bounds) == 1:
            rows = [row for row in rows if row[0].startswith(bounds[0])]
        elif len(bounds) == 2:
            rows = [row for row in rows if bounds[0] <= row[0] <= bounds[1]]
        return {"Items": [item for _, item in rows], "Count": len(rows), "ScannedCount": len(rows)}


class Cloud:
    """The services of workers and stream readers: DynamoDB, SQS, STS, S3, WebSocket connections."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._posts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])  # posts and bytes by connection
        self._last: dict[str, bytes] = {}  # the last frame by connection

    def answer(self, path: str, target: str, body: bytes) -> bytes:
        """Answer a request; `/seen` returns what each connection received.

        `target` is the header `X-Amz-Target`.
        """
        if "/@connections/" in path:
            connection = unquote(path.rsplit("/", 1)[1])
            counts = self._posts[connection]
            counts[0], counts[1] = counts[0] + 1, counts[1] + len(body)
            self._last[connection] = body
            return b""
        if path == "/seen":
            received = {
                connection: {"posts": posts, "bytes": size, "last": json.loads(self._last[connection])}
                for connection, (posts, size) in self._posts.items()
            }
            return json.dumps(received).encode()
        service, _, operation = target.partition(".")
        if service.startswith("DynamoDB"):
            return json.dumps(self._tables.answer(operation, json.loads(body))).encode()
        if not service:
            return IDENTITY if b"GetCallerIdentity" in body else b""  # the empty answer is for a put to S3
        return json.dumps({"QueueUrl": "http://127.0.0.1/queue", "Successful": []}).encode()


class _Connection(asyncio.Protocol):
    """A minimal HTTP/1.1 server, because the measured process waits for its answers."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._buffer, self._continue_sent = cloud, b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            lines = self._buffer[:end].decode("latin-1").split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            length = end + 4 + int(fields.get("content-length", 0))
            if len(self._buffer) < length:
                if "expect" in fields and not self._continue_sent:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    self._continue_sent = True
                return
            self._continue_sent = False
            body, self._buffer = self._buffer[end + 4 : length], self._buffer[length:]
            answer = self._cloud.answer(lines[0].split(" ")[1], fields.get("x-amz-target", ""), body)
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
            )


async def serve() -> None:
    """Print the port and serve until terminated."""
    cloud = Cloud()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(cloud), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _key(table: str, item: Item) -> tuple[str, str]:
    hash_key, range_key = KEYS[table.rsplit("-", 1)[1]]
    return item[hash_key]["S"], item[range_key]["S"] if range_key else ""


if __name__ == "__main__":
    asyncio.run(serve())
