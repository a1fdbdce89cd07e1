"""AWS Lambda on moto: the functions of `app.py`, each with the role of its kind and a container of its own.

Messages and change records reach the functions by the event sources that `app.py` declares, so a
new function needs nothing here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

from chalice.app import DynamoDBEventConfig, ScheduledEventConfig, SQSEventConfig
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.utilities import dynamo_json_dump
from moto.sqs.models import sqs_backends

from chalicelib import bootstrap
from chalicelib.adapters.aws import client as aws
from chalicelib.domain.queues.lanes import SCHEDULE, queue_name
from chalicelib.settings import settings
from infra.chalice_config import FUNCTIONS
from infra.naming import table_name
from tests.kit.http import CONTEXT, Api, Reply
from tests.kit.iam import Roles
from tests.kit.moto_stage import ACCOUNT, REGION, STAGE

T = TypeVar("T")
KIND_OF = {function.name: function.kind for function in FUNCTIONS}
MAX_ROUNDS = 30
SCHEDULER = "run_scheduler"
STREAMS = f"https://streams.dynamodb.{REGION}.amazonaws.com"  # moto does not know the endpoint of the account
SCHEDULED = {**dict.fromkeys(("version", "account", "region", "source", "id", "time", "detail-type"), ""), "detail": {}, "resources": []}


class Lambdas:
    """Invokes functions. `invoked` has the names of those that were, `remaining_ms` the time of some."""

    def __init__(self, roles: Roles, make_container: Callable[[str], bootstrap.Container]) -> None:
        self.roles = roles
        self.api = Api()
        self.invoked: set[str] = set()
        self.remaining_ms: dict[str, int] = {}
        self.containers = {kind: make_container(kind) for kind in set(KIND_OF.values())}
        self._changes: list[Any] = []  # all records of the stream
        self._positions: Counter[str] = Counter()  # in it, by function

    def run(self, function: str, work: Callable[[], T]) -> T:
        """Do something as a function: with its role and its container."""
        self.invoked.add(function)
        kind = KIND_OF[function]
        bootstrap.override(self.containers[kind])
        with self.roles.acting_as(kind):
            return work()

    def invoke(self, function: str, event: Any) -> Any:
        remaining = self.remaining_ms.get(function)
        context = CONTEXT if remaining is None else SimpleNamespace(**vars(CONTEXT) | {"get_remaining_time_in_millis": lambda: remaining})
        return self.run(function, lambda: getattr(self.api.module, function)(event, context))

    def call(self, method: str, url: str, body: Any = None, token: str = "user", **headers: str) -> Reply:
        """Send a request to the API; an answer of 500 is a fault."""
        answer = self.run("api_handler", lambda: self.api.call(method, url, body, token, **headers))
        assert answer.status not in (500, 503), f"{method} {url}: {answer.text}; refused: {self.roles.refused}"
        return answer

    def socket(self, route: str, body: str | None = None, connection: str = "c1", **fields: Any) -> Any:
        """Send an event of the WebSocket API to its function."""
        context = {
            "routeKey": route,
            "connectionId": connection,
            "domainName": f"abc123.execute-api.{REGION}.amazonaws.com",
            "stage": "api",
            "apiId": "abc123",
            "requestId": "r1",
        }
        function = {"$connect": "websocket_connect", "$disconnect": "websocket_disconnect"}.get(route, "websocket_message")
        return self.invoke(function, {"body": body, "requestContext": context, **fields})

    def tick(self, *functions: str) -> None:
        """Invoke these functions, which have a schedule; by default all that have one."""
        for source in self._sources(ScheduledEventConfig):
            if not functions or source.name in functions:
                self.invoke(source.name, SCHEDULED)

    def settle(self) -> None:
        """Deliver messages and change records until there are none.

        The scheduler comes last: while jobs wait it always has a message. It is done when it releases
        nothing.
        """
        has_scheduled = False
        for _ in range(MAX_ROUNDS):
            if self.deliver_messages() or self.deliver_changes():
                has_scheduled = False
            elif has_scheduled or not self.run_scheduler():
                return
            else:
                has_scheduled = True
        raise AssertionError(f"messages or changes were left after {MAX_ROUNDS} rounds")

    def deliver_messages(self) -> int:
        """Deliver messages of each queue but the scheduler's."""
        return sum(self._deliver_messages_of(source) for source in self._sources(SQSEventConfig) if source.name != SCHEDULER)

    def run_scheduler(self) -> int:
        """Deliver the messages of the scheduler's queue, of equal ones only the last: on AWS the others come
        while the shard is served.
        """
        [source] = [source for source in self._sources(SQSEventConfig) if source.name == SCHEDULER]
        queue: Any = sqs_backends[ACCOUNT][REGION].queues[queue_name(STAGE, SCHEDULE)]
        last = {json.dumps(json.loads(message.body) | {"at": None}): message for message in queue.messages}
        queue._messages = [message for message in queue._messages if message not in queue.messages or message in last.values()]
        return sum(self._deliver_messages_of(source) for _ in last)

    def _deliver_messages_of(self, source: SQSEventConfig) -> int:
        """Deliver messages of a queue, as the event source mapping does: with the role of its function."""
        queue = queue_name(STAGE, source.queue.removeprefix(queue_name(settings().stage, "")))
        if not sqs_backends[ACCOUNT][REGION].queues[queue].messages:
            return 0
        return self._deliver_messages_to(source.name, f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{queue}", source.batch_size)

    def _deliver_messages_to(self, function: str, url: str, batch_size: int) -> int:
        sqs = aws.client("sqs")
        with self.roles.acting_as(KIND_OF[function]):
            sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=min(batch_size, 10)).get("Messages", [])
        records = [{"body": one["Body"], "receiptHandle": one["ReceiptHandle"], "messageId": one["MessageId"]} for one in messages]
        self.invoke(function, {"Records": records})
        with self.roles.acting_as(KIND_OF[function]):
            for message in messages:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return len(messages)

    def deliver_changes(self) -> int:
        """Deliver the new records of the stream to each of its readers.

        A reader's first records prove the rights of its role. All are taken from moto itself, whose
        API needs more time for them than everything else here.
        """
        shard: Any = dynamodb_backends[ACCOUNT][REGION].tables[table_name(STAGE, "jobs")].stream_shard
        self._changes += [json.loads(dynamo_json_dump(record.to_json())) for record in shard.items[len(self._changes) :]]
        delivered = 0
        for source in self._sources(DynamoDBEventConfig):
            new = self._changes[self._positions[source.name] :]
            if new:
                if not self._positions[source.name]:
                    self._read_stream_as(KIND_OF[source.name])
                self._positions[source.name] += len(new)
                self.invoke(source.name, {"Records": new})
            delivered += len(new)
        return delivered

    def lose_changes(self) -> None:
        """Let no reader get the records that are new in the stream."""
        shard: Any = dynamodb_backends[ACCOUNT][REGION].tables[table_name(STAGE, "jobs")].stream_shard
        for source in self._sources(DynamoDBEventConfig):
            self._positions[source.name] = len(shard.items)

    def _read_stream_as(self, kind: str) -> None:
        streams = aws.client("dynamodbstreams", endpoint_url=STREAMS)
        with self.roles.acting_as(kind):
            arn = streams.list_streams(TableName=table_name(STAGE, "jobs"))["Streams"][0]["StreamArn"]
            shard = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"][0]["ShardId"]
            start = streams.get_shard_iterator(StreamArn=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
            streams.get_records(ShardIterator=start["ShardIterator"], Limit=1)

    def _sources(self, kind: type[Any]) -> list[Any]:
        return [source for source in self.api.app.event_sources if isinstance(source, kind)]
