"""The alarms of a stage: what they watch, and when."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.adapters.aws.sqs import MAX_DELAY
from chalicelib.domain.jobs.transitions import MAX_ISOLATED_CRASHES
from chalicelib.domain.queues import lanes
from infra import alarms
from infra.alarms import TOPIC_ARN, topic_resources
from infra.chalice_config import FUNCTIONS
from infra.naming import STAGES, resource_id, table_name
from infra.tables import TABLES
from infra.template import alarm_template, template
from tests.kit.paths import ROOT

# The metrics that AWS has under these names, and the dimensions that they have. An alarm on any
# other combination would wait for data forever.
METRICS = {
    ("AWS/Lambda", "Errors"): {"FunctionName"},
    ("AWS/Lambda", "Invocations"): {"FunctionName"},
    ("AWS/Lambda", "IteratorAge"): {"FunctionName"},
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): {"QueueName"},
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): {"QueueName"},
    ("AWS/DynamoDB", "ReadThrottleEvents"): {"TableName"},  # and GlobalSecondaryIndexName
    ("AWS/DynamoDB", "WriteThrottleEvents"): {"TableName"},  # likewise
    ("AWS/ApiGateway", "5XXError"): {"ApiName", "Stage"},
}
STATISTIC = {"Errors": "Sum", "Invocations": "Sum", "ReadThrottleEvents": "Sum", "WriteThrottleEvents": "Sum", "5XXError": "Sum"}


def made(stage: str = "prod") -> dict[str, dict[str, Any]]:
    """The properties of every alarm by its name without the stage."""
    found = [one["Properties"] for one in alarm_template(stage)["Resources"].values()]
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
    assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": TOPIC_ARN}]
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


@pytest.mark.parametrize("queue", [*lanes.JOB_QUEUES, *lanes.TASK_QUEUES])
def test_oldest_message_of_a_queue_may_have_been_delayed_and_then_processed_for_as_long_as_it_may(queue: str) -> None:
    """Its age counts from the send, and it stays in its queue until it has been processed."""
    alarm = made()[f"{queue}-oldest-message"]
    visibility = template("prod")["Resources"][f"{resource_id(queue)}Queue"]["Properties"]["VisibilityTimeout"]
    processed = lanes.WORKER_TIMEOUT if queue in lanes.JOB_QUEUES else lanes.MAX_RECEIVE_COUNT * visibility

    assert dimensions(alarm) == {"QueueName": lanes.queue_name("prod", queue)}
    assert alarm["Threshold"] > MAX_DELAY + processed


@pytest.mark.parametrize("stage", STAGES)
def test_every_function_has_an_alarm_for_its_errors(stage: str) -> None:
    """Chalice names the functions; a function of another name would have no data."""
    watched = [dimensions(one)["FunctionName"] for one in made(stage).values() if one["MetricName"] == "Errors"]

    assert sorted(watched) == sorted(function.aws_name(stage) for function in FUNCTIONS)


def test_one_job_that_kills_its_workers_is_no_alarm() -> None:
    """Each of them is one error, in a minute of its own."""
    for queue in lanes.JOB_QUEUES.values():
        assert made()[f"{queue.function}-errors"]["DatapointsToAlarm"] > MAX_ISOLATED_CRASHES + 1, "one beside others, then alone"


def test_every_table_and_index_has_an_alarm_for_throttles() -> None:
    """The events of an index are not among those of its table."""
    watched = [(one["MetricName"], dimensions(one)) for one in made().values() if one["Namespace"] == "AWS/DynamoDB"]

    for table in TABLES:
        of = {"TableName": table_name("prod", table.name)}
        for each in (of, *(of | {"GlobalSecondaryIndexName": index.name} for index in table.indexes)):
            assert sorted(metric for metric, dimension in watched if dimension == each) == ["ReadThrottleEvents", "WriteThrottleEvents"]


def test_every_reader_of_the_change_stream_has_an_alarm_for_its_lag() -> None:
    behind = {dimensions(one)["FunctionName"]: one["Threshold"] for one in made().values() if one["MetricName"] == "IteratorAge"}

    assert behind == {"headrace-prod-on_job_change": 60_000, "headrace-prod-count_jobs": 60_000}


@pytest.mark.parametrize("stage", STAGES)
def test_the_documents_say_how_many_alarms_a_stage_has_and_what_they_cost(stage: str) -> None:
    number, text = len(made(stage)), (ROOT / "docs" / "operations.md").read_text()

    assert f"There are {number}, which cost $0.10 each, ${number / 10:.2f} a month" in text
    assert f"{number} alarms to one topic" in (ROOT / "docs" / "aws.md").read_text()


def test_alarms_are_mailed_to_the_address_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "ALARM_EMAIL", {"dev": "ops@example.org", "prod": ""})

    assert topic_resources("dev")["AlarmMail"]["Properties"] == {
        "TopicArn": {"Ref": "AlarmTopic"},
        "Protocol": "email",
        "Endpoint": "ops@example.org",
    }
    assert "AlarmMail" not in topic_resources("prod")
