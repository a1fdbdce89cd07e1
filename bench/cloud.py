"""AWS on the loopback, as small as can be: `python -m bench.cloud` prints its port and serves until it is ended.

It keeps items as the adapters put them and answers their reads, so that all of PynamoDB's and botocore's work is done and counted; it
checks no condition, because nobody competes here. Frames posted to connections are counted. moto in the measured process would take the
processor time that is to be measured, so this has a process of its own.
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

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        """One request of DynamoDB's API, of those that the adapters make."""
        return getattr(self, f"_{operation}")(asked)  # type: ignore[no-any-return]

    def _PutItem(self, asked: Item) -> Item:  # noqa: N802 - named as the operation is
        self._items[asked["TableName"]][_key(asked["TableName"], asked["Item"])] = asked["Item"]
        return {}

    def _TransactWriteItems(self, asked: Item) -> Item:  # noqa: N802
        for one in asked["TransactItems"]:
            self._PutItem(one["Put"])
        return {}

    def _UpdateItem(self, asked: Item) -> Item:  # noqa: N802
        """Only `SET #0 = :0, ...`: what ringing a bell needs."""
        item = self._items[asked["TableName"]].setdefault(_key(asked["TableName"], asked["Key"]), dict(asked["Key"]))
        for name, value in SET.findall(asked["UpdateExpression"]):
            item[asked["ExpressionAttributeNames"][name]] = asked["ExpressionAttributeValues"][value]
        return {}

    def _DeleteItem(self, asked: Item) -> Item:  # noqa: N802
        self._items[asked["TableName"]].pop(_key(asked["TableName"], asked["Key"]), None)
        return {}

    def _GetItem(self, asked: Item) -> Item:  # noqa: N802
        item = self._items[asked["TableName"]].get(_key(asked["TableName"], asked["Key"]))
        return {"Item": item} if item else {}

    def _BatchGetItem(self, asked: Item) -> Item:  # noqa: N802
        found = {
            name: [item for key in wanted["Keys"] if (item := self._items[name].get(_key(name, key)))]
            for name, wanted in asked["RequestItems"].items()
        }
        return {"Responses": found, "UnprocessedKeys": {}}

    def _Query(self, asked: Item) -> Item:  # noqa: N802
        """One partition, in order, from a beginning of the sort key or between two."""
        texts = [value["S"] for _, value in sorted(asked["ExpressionAttributeValues"].items())]
        owner, *bounds = texts if "begins_with" in asked["KeyConditionExpression"] or len(texts) != 3 else (texts[0], *sorted(texts[1:]))
        rows = sorted((sort, item) for (partition, sort), item in self._items[asked["TableName"]].items() if partition == owner)
        if len(bounds) == 1:
            rows = [row for row in rows if row[0].startswith(bounds[0])]
        elif len(bounds) == 2:
            rows = [row for row in rows if bounds[0] <= row[0] <= bounds[1]]
        return {"Items": [item for _, item in rows], "Count": len(rows), "ScannedCount": len(rows)}


class Cloud:
    """Everything that an engine reaches."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._posts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._last: dict[str, bytes] = {}

    def answer(self, path: str, target: str, body: bytes) -> bytes:
        if "/@connections/" in path:
            connection = unquote(path.rsplit("/", 1)[1])
            counted = self._posts[connection]
            counted[0], counted[1] = counted[0] + 1, counted[1] + len(body)
            self._last[connection] = body
            return b""
        if path == "/seen":
            seen = {
                connection: {"posts": posts, "bytes": size, "last": json.loads(self._last[connection])}
                for connection, (posts, size) in self._posts.items()
            }
            return json.dumps(seen).encode()
        service, _, operation = target.partition(".")
        if service.startswith("DynamoDB"):
            return json.dumps(self._tables.answer(operation, json.loads(body))).encode()
        if not service:
            return IDENTITY if b"GetCallerIdentity" in body else b""  # or a put of S3
        return json.dumps({"QueueUrl": "http://127.0.0.1/queue", "Successful": []}).encode()


class _Connection(asyncio.Protocol):
    """HTTP/1.1, one request after the other: little work, because what is measured waits for it."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._held, self._told = cloud, b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].decode("latin-1").split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            whole = end + 4 + int(fields.get("content-length", 0))
            if len(self._held) < whole:
                if "expect" in fields and not self._told:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    self._told = True
                return
            self._told = False
            body, self._held = self._held[end + 4 : whole], self._held[whole:]
            answer = self._cloud.answer(head[0].split(" ")[1], fields.get("x-amz-target", ""), body)
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer
            )


async def serve() -> None:
    cloud = Cloud()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(cloud), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _key(table: str, item: Item) -> tuple[str, str]:
    hash_key, range_key = KEYS[table.rsplit("-", 1)[1]]
    return item[hash_key]["S"], item[range_key]["S"] if range_key else ""


if __name__ == "__main__":
    asyncio.run(serve())
