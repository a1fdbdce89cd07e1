"""The alarms of a stage: what they watch, and when."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.queues import lanes
from infra import alarms
from infra.alarms import alarm_resources
from infra.chalice_config import FUNCTIONS
from infra.naming import STAGES, table_name
from infra.tables import TABLES
from infra.template import template

# The metrics that AWS has under these names, and the dimensions that they have. An alarm on any
# other combination would wait for data forever.
METRICS = {
    ("AWS/Lambda", "Errors"): {"FunctionName"},
    ("AWS/Lambda", "Invocations"): {"FunctionName"},
    ("AWS/Lambda", "IteratorAge"): {"FunctionName"},
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): {"QueueName"},
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): {"QueueName"},
    ("AWS/DynamoDB", "ReadThrottleEvents"): {"TableName"},
    ("AWS/DynamoDB", "WriteThrottleEvents"): {"TableName"},
    ("AWS/ApiGateway", "5XXError"): {"ApiName", "Stage"},
}
STATISTIC = {"Errors": "Sum", "Invocations": "Sum", "ReadThrottleEvents": "Sum", "WriteThrottleEvents": "Sum", "5XXError": "Sum"}


def made(stage: str = "prod") -> dict[str, dict[str, Any]]:
    """The properties of every alarm by its name without the stage."""
    found = [one["Properties"] for one in template(stage)["Resources"].values() if one["Type"] == "AWS::CloudWatch::Alarm"]
    return {one["AlarmName"].removeprefix(f"headrace-{stage}-"): one for one in found}


def dimensions(alarm: dict[str, Any]) -> dict[str, str]:
    return {one["Name"]: one["Value"] for one in alarm["Dimensions"]}


@pytest.mark.parametrize(("name", "alarm"), made().items(), ids=made().keys())
def test_an_alarm_watches_a_metric_that_exists_by_its_statistic(name: str, alarm: dict[str, Any]) -> None:
    names = set(dimensions(alarm)) - {"GlobalSecondaryIndexName"}

    assert names == METRICS[alarm["Namespace"], alarm["MetricName"]]
    assert alarm["Statistic"] == STATISTIC.get(alarm["MetricName"], "Maximum")
    assert alarm["Period"] % 60 == 0
    assert 1 <= alarm["DatapointsToAlarm"] <= alarm["EvaluationPeriods"]


@pytest.mark.parametrize(("name", "alarm"), made().items(), ids=made().keys())
def test_an_alarm_tells_the_topic_when_it_begins_and_ends(name: str, alarm: dict[str, Any]) -> None:
    assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "AlarmTopic"}]
    assert alarm["AlarmDescription"].endswith(".")


def test_only_the_absence_of_a_schedule_is_an_alarm_without_data() -> None:
    """Where nothing happens the other metrics have no values."""
    assert {name for name, alarm in made().items() if alarm["TreatMissingData"] != "notBreaching"} == {
        f"{function.name}-absent" for function in FUNCTIONS if function.every_minute
    }
    absent = made()["sweep-absent"]
    assert (absent["TreatMissingData"], absent["ComparisonOperator"], absent["Threshold"]) == ("breaching", "LessThanThreshold", 1)


@pytest.mark.parametrize("stage", STAGES)
def test_every_dead_letter_queue_has_an_alarm_for_its_first_message(stage: str) -> None:
    queues = {one["Properties"]["QueueName"] for one in template(stage)["Resources"].values() if one["Type"] == "AWS::SQS::Queue"}
    watched = {dimensions(one)["QueueName"]: one for name, one in made(stage).items() if name.endswith("-dead-letters")}

    assert set(watched) == {name for name in queues if name.endswith("-dead")}
    assert {(one["ComparisonOperator"], one["Threshold"]) for one in watched.values()} == {("GreaterThanThreshold", 0)}


@pytest.mark.parametrize("queue", lanes.JOB_QUEUES)
def test_oldest_message_of_a_queue_may_be_as_old_as_a_worker_may_run(queue: str) -> None:
    """A message stays in its queue until its job has ended."""
    alarm = made()[f"{queue}-oldest-message"]

    assert dimensions(alarm) == {"QueueName": lanes.queue_name("prod", queue)}
    assert alarm["Threshold"] > lanes.WORKER_TIMEOUT


def test_every_table_and_index_has_an_alarm_for_throttles() -> None:
    watched = [dimensions(one) for one in made().values() if one["Namespace"] == "AWS/DynamoDB"]

    for table in TABLES:
        of = {"TableName": table_name("prod", table.name)}
        assert watched.count(of) == 2, "reads and writes"
        assert all(of | {"GlobalSecondaryIndexName": index.name} in watched for index in table.indexes)


def test_every_reader_of_the_change_stream_has_an_alarm_for_its_lag() -> None:
    behind = {dimensions(one)["FunctionName"]: one["Threshold"] for one in made().values() if one["MetricName"] == "IteratorAge"}

    assert behind == {"headrace-prod-on_job_change": 60_000, "headrace-prod-count_jobs": 60_000}


def test_alarms_are_mailed_to_the_address_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "ALARM_EMAIL", {"dev": "ops@example.org", "prod": ""})

    assert alarm_resources("dev")["AlarmMail"]["Properties"] == {
        "TopicArn": {"Ref": "AlarmTopic"},
        "Protocol": "email",
        "Endpoint": "ops@example.org",
    }
    assert "AlarmMail" not in alarm_resources("prod")
