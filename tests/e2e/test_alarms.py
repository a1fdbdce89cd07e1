"""An alarm reaches whoever subscribed to the topic of the stage."""

from __future__ import annotations

import json
from typing import Any

from infra.alarms import topic_name
from tests.e2e.stack import Stack, until

ALARM = "headrace-local-sweep-errors"


def test_an_alarm_reaches_a_subscriber_of_the_topic(stack: Stack) -> None:
    sns, sqs, cloudwatch = (stack.aws(service) for service in ("sns", "sqs", "cloudwatch"))
    topic = next(one["TopicArn"] for one in sns.list_topics()["Topics"] if one["TopicArn"].endswith(f":{topic_name('local')}"))
    queue = sqs.create_queue(QueueName="alarm-receiver")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": json.dumps(accepts_from(topic, arn))})
    subscription = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)["SubscriptionArn"]
    try:
        cloudwatch.set_alarm_state(AlarmName=ALARM, StateValue="ALARM", StateReason="a test")

        told = until(lambda: received(sqs, queue), "the message of the alarm")

        assert (told["AlarmName"], told["NewStateValue"]) == (ALARM, "ALARM")
    finally:
        cloudwatch.set_alarm_state(AlarmName=ALARM, StateValue="OK", StateReason="the test is over")
        sns.unsubscribe(SubscriptionArn=subscription)
        sqs.delete_queue(QueueUrl=queue)


def accepts_from(topic: str, queue: str) -> dict[str, Any]:
    """The policy of a queue that SNS may send to."""
    source = {"ArnEquals": {"aws:SourceArn": topic}}
    statement = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": queue}
    return {"Version": "2012-10-17", "Statement": [statement | {"Condition": source}]}


def received(sqs: Any, queue: str) -> dict[str, Any] | None:
    messages = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", [])
    return json.loads(json.loads(messages[0]["Body"])["Message"]) if messages else None
