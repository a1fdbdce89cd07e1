"""The alarms of a stage and the topic that they go to.

Each alarm is about something that does not heal by itself, or that heals only while somebody looks.
They are listed in docs/operations.md with what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chalicelib.domain.queues import lanes
from infra.chalice_config import ALARM_EMAIL, FUNCTIONS
from infra.naming import API_STAGE, resource_id, table_name
from infra.tables import TABLES

Resource = dict[str, Any]

TOPIC = "AlarmTopic"  # the logical name
TOPIC_ARN = "AlarmTopicArn"  # the output of the stage's stack, and the parameter of that of the alarms
BEHIND_MS = 60_000  # of a reader of the change stream: a record blocks its shard, or the reader is too slow
# The oldest message of a queue. Its age counts from the send: a message may be delayed for 15
# minutes (a held job, a delivery that is due later hops so), and then stays in its queue while it is
# processed: a job's for 15 minutes, a task's or delivery's for five visibility timeouts at most. So
# no bound can be shorter than half an hour. Queues with less hurry may have a backlog.
OLDEST_SECONDS = {"urgent": 2_100, "high": 2_700, lanes.TASKS: 2_700, lanes.DELIVERIES: 2_700, "low": 6 * 3600}
OLDEST_SECONDS_OF_OTHERS = 3_600


@dataclass(frozen=True)
class Alarm:
    """One alarm: the metric, and when it is too much.

    `minutes` of `window` periods have to be beyond the threshold; None: all.
    """

    name: str
    meaning: str
    namespace: str
    metric: str
    dimensions: dict[str, str]
    statistic: str = "Sum"
    above: float = 0
    below: float | None = None  # instead of `above`
    window: int = 5
    minutes: int | None = None
    missing: str = "notBreaching"  # most metrics have no values while nothing happens
    period: int = 60  # seconds


def topic_name(stage: str) -> str:
    return f"headrace-{stage}-alarms"


def topic_resources(stage: str) -> dict[str, Resource]:
    """The topic, and its subscription if the stage has an address."""
    resources: dict[str, Resource] = {TOPIC: {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": topic_name(stage)}}}
    if ALARM_EMAIL[stage]:
        subscription = {"TopicArn": {"Ref": TOPIC}, "Protocol": "email", "Endpoint": ALARM_EMAIL[stage]}
        resources["AlarmMail"] = {"Type": "AWS::SNS::Subscription", "Properties": subscription}
    return resources


def alarm_resources(stage: str) -> dict[str, Resource]:
    """Every alarm, by logical name. They are sent to the topic that the parameter `TOPIC_ARN` names."""
    return {f"{resource_id(alarm.name.replace('-', '_'))}Alarm": _resource(alarm, stage) for alarm in alarms(stage)}


def alarms(stage: str) -> Iterator[Alarm]:
    """Every alarm of a stage."""
    yield from _schedules(stage)
    yield from _errors(stage)
    yield from _change_stream(stage)
    yield from _queues(stage)
    yield from _tables(stage)
    yield from _api(stage)


def _schedules(stage: str) -> Iterator[Alarm]:
    for function in FUNCTIONS:
        if function.every_minute:
            of = {"FunctionName": function.aws_name(stage)}
            failed = f"{function.name} fails: what it recovers or sends stays where it is."
            yield Alarm(f"{function.name}-errors", failed, "AWS/Lambda", "Errors", of, minutes=2)
            absent = f"{function.name} has not run for five minutes: its schedule is off, or it is throttled."
            yield Alarm(
                f"{function.name}-absent", absent, "AWS/Lambda", "Invocations", of, below=1, window=1, missing="breaching", period=300
            )


def _errors(stage: str) -> Iterator[Alarm]:
    """Of the functions without a schedule; those with one have an alarm of their own.

    What fails once is repeated, and a job that kills the workers that run it alone ends with the
    third: only what goes on for longer is an alarm.
    """
    for function in FUNCTIONS:
        if not function.every_minute:
            of = {"FunctionName": function.aws_name(stage)}
            name = "api" if function.name == "api_handler" else function.name
            window, minutes = (5, 3) if name == "api" else (10, 5)  # all requests go through the API
            dies = f"{function.name} raises, dies or runs out of time again and again."
            yield Alarm(f"{name}-errors", dies, "AWS/Lambda", "Errors", of, window=window, minutes=minutes)


def _change_stream(stage: str) -> Iterator[Alarm]:
    for function in FUNCTIONS:
        if function.stream is not None:
            of = {"FunctionName": function.aws_name(stage)}
            behind = f"{function.name} is behind the change stream: what follows from a job's change is late."
            yield Alarm(f"{function.name}-behind", behind, "AWS/Lambda", "IteratorAge", of, "Maximum", above=BEHIND_MS)


def _queues(stage: str) -> Iterator[Alarm]:
    for name in (*lanes.JOB_QUEUES, *lanes.TASK_QUEUES, lanes.STREAM):
        of = {"QueueName": lanes.dead_letter_queue_name(stage, name)}
        dead = f"{of['QueueName']} has messages that could not be processed."
        yield Alarm(f"{name}-dead-letters", dead, "AWS/SQS", "ApproximateNumberOfMessagesVisible", of, "Maximum", window=1)
    for name in (*lanes.JOB_QUEUES, *lanes.TASK_QUEUES):
        of, most = {"QueueName": lanes.queue_name(stage, name)}, OLDEST_SECONDS.get(name, OLDEST_SECONDS_OF_OTHERS)
        late = f"A message has been in the queue {name} for more than {most // 60} minutes."
        yield Alarm(f"{name}-oldest-message", late, "AWS/SQS", "ApproximateAgeOfOldestMessage", of, "Maximum", above=most)


def _tables(stage: str) -> Iterator[Alarm]:
    for table in TABLES:
        of = {"TableName": table_name(stage, table.name)}
        for kind in ("Read", "Write"):
            slow = f"DynamoDB throttles {kind.lower()}s of {of['TableName']}."
            yield Alarm(f"{table.name}-{kind.lower()}s-throttled", slow, "AWS/DynamoDB", f"{kind}ThrottleEvents", of, minutes=3)
        for index in table.indexes:
            of_index = of | {"GlobalSecondaryIndexName": index.name}  # not among the events of its table
            slow = f"DynamoDB throttles reads of the index {index.name} of {of['TableName']}."
            yield Alarm(f"{table.name}-{index.name}-reads-throttled", slow, "AWS/DynamoDB", "ReadThrottleEvents", of_index, minutes=3)
            slow = f"DynamoDB throttles writes to the index {index.name}, and with them writes of {of['TableName']}."
            yield Alarm(f"{table.name}-{index.name}-writes-throttled", slow, "AWS/DynamoDB", "WriteThrottleEvents", of_index, minutes=3)


def _api(stage: str) -> Iterator[Alarm]:
    """API Gateway counts by the name of the API, which all stages of an account share."""
    of = {"ApiName": "headrace", "Stage": API_STAGE}
    yield Alarm("api-5xx", "The API answers with 5xx.", "AWS/ApiGateway", "5XXError", of, above=5, minutes=3)


def _resource(alarm: Alarm, stage: str) -> Resource:
    return {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "AlarmName": f"headrace-{stage}-{alarm.name}",
            "AlarmDescription": alarm.meaning,
            "Namespace": alarm.namespace,
            "MetricName": alarm.metric,
            "Dimensions": [{"Name": name, "Value": value} for name, value in alarm.dimensions.items()],
            "Statistic": alarm.statistic,
            "Period": alarm.period,
            "EvaluationPeriods": alarm.window,
            "DatapointsToAlarm": alarm.minutes or alarm.window,
            "Threshold": alarm.above if alarm.below is None else alarm.below,
            "ComparisonOperator": "GreaterThanThreshold" if alarm.below is None else "LessThanThreshold",
            "TreatMissingData": alarm.missing,
            "AlarmActions": [{"Ref": TOPIC_ARN}],
            "OKActions": [{"Ref": TOPIC_ARN}],
        },
    }
