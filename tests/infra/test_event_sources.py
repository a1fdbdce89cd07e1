"""The settings of event sources that Chalice cannot set, and the other calls after a deployment."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.domain.jobs.job import Status
from infra.chalice_config import BY_NAME, FUNCTIONS, REST_THROTTLE, WEBSOCKET_THROTTLE, Throttle
from infra.cloud import Cloud
from infra.deployment.event_sources import NotSettled, differences, set_event_sources, settings_of, settings_of_new
from infra.deployment.recursion import allow_loops
from infra.deployment.throttling import rest_throttle, set_throttles, websocket_throttle
from infra.naming import STAGES
from infra.policies import policy
from tests.kit.change_records import change
from tests.kit.records import job

QUEUE = "arn:aws:sqs:eu-west-1:123456789012:headrace-dev-normal"
STREAM = "arn:aws:dynamodb:eu-west-1:123456789012:table/headrace-dev-jobs/stream/2026-11-28T00:00:00.000"
READERS = [function for function in FUNCTIONS if function.stream is not None]
CONSUMERS = [function for function in FUNCTIONS if function.reports]


class FakeLambda:
    """The calls of Lambda that a deployment makes, each counted."""

    class exceptions:  # noqa: N801 - as botocore calls it
        class ResourceNotFoundException(Exception):
            pass

    def __init__(self, mappings: dict[str, dict[str, Any]], loops: dict[str, str] | None = None) -> None:
        self.mappings, self.loops = mappings, loops or {}
        self.states: list[str] = []  # of the next calls of get_event_source_mapping
        self.updates: list[str] = []

    def list_event_source_mappings(self, FunctionName: str) -> dict[str, Any]:  # noqa: N803
        if not self.mappings:
            raise self.exceptions.ResourceNotFoundException
        return {"EventSourceMappings": [{**one} for name, one in self.mappings.items() if name == FunctionName]}

    def get_event_source_mapping(self, UUID: str) -> dict[str, Any]:  # noqa: N803
        return {"State": self.states.pop(0) if self.states else "Enabled"}

    def update_event_source_mapping(self, UUID: str, **settings: Any) -> None:  # noqa: N803
        name = next(name for name, one in self.mappings.items() if one["UUID"] == UUID)
        self.mappings[name] |= settings
        self.updates.append(name)

    def get_function_recursion_config(self, FunctionName: str) -> dict[str, str]:  # noqa: N803
        return {"RecursiveLoop": self.loops.get(FunctionName, "Terminate")}

    def put_function_recursion_config(self, FunctionName: str, RecursiveLoop: str) -> None:  # noqa: N803
        self.loops[FunctionName] = RecursiveLoop
        self.updates.append(FunctionName)


def cloud_with(client: FakeLambda) -> Any:
    class FakeCloud(Cloud):
        def client(self, service: str) -> Any:
            assert service == "lambda"
            return client

    return FakeCloud("dev")


def deployed_by_chalice() -> dict[str, dict[str, Any]]:
    return {
        function.aws_name("dev"): {"UUID": function.name, "EventSourceArn": STREAM if function.stream else QUEUE, "State": "Enabled"}
        for function in READERS + CONSUMERS
    }


def test_event_sources_of_the_app_are_those_with_settings() -> None:
    assert {function.name for function in READERS} == {"on_job_change", "count_jobs"}
    assert {"worker_urgent", "worker_high", "worker_normal", "worker_low", "deliver", "run_tasks"} <= {one.name for one in CONSUMERS}


@pytest.mark.parametrize("function", READERS, ids=lambda one: str(one.name))
def test_a_stream_reader_halves_a_failing_batch_and_keeps_what_it_gives_up(function: Any) -> None:
    settings = settings_of(function, "dev", STREAM)

    assert settings["BisectBatchOnFunctionError"] is True
    assert (settings["MaximumRetryAttempts"], settings["MaximumRecordAgeInSeconds"]) == (50, 21_600)
    assert settings["DestinationConfig"]["OnFailure"]["Destination"] == "arn:aws:sqs:eu-west-1:123456789012:headrace-dev-stream-dead"


@pytest.mark.parametrize("function", READERS, ids=lambda one: str(one.name))
@pytest.mark.parametrize("stage", STAGES)
def test_a_stream_reader_may_send_to_the_destination_of_its_event_source(stage: str, function: Any) -> None:
    """Lambda sends there as the function. Without the right AWS refuses the event source."""
    senders = [one for one in policy(function.kind, stage)["Statement"] if "sqs:SendMessage" in one["Action"]]

    assert any(resource.endswith(f":headrace-{stage}-*") for one in senders for resource in one["Resource"])


@pytest.mark.parametrize("function", CONSUMERS, ids=lambda one: str(one.name))
def test_a_queue_consumer_takes_the_answer_that_its_environment_promises(function: Any) -> None:
    assert settings_of(function, "dev", QUEUE) == {"FunctionResponseTypes": ["ReportBatchItemFailures"]}


def gets(function: str, record: dict[str, Any]) -> bool:
    """Whether a function gets a change record, by Lambda's rules of filters."""
    reader = BY_NAME[function].stream
    assert reader is not None
    return any(_matches(pattern, record) for pattern in reader.filters)


def _matches(pattern: dict[str, Any], value: dict[str, Any]) -> bool:
    return all(
        value.get(key) in wanted if isinstance(wanted, list) else _matches(wanted, value.get(key, {})) for key, wanted in pattern.items()
    )


@pytest.mark.parametrize("status", list(Status))
def test_readers_of_the_stream_get_every_change_that_they_act_on(status: Status) -> None:
    """Nobody waits for, watches or is told of a job that is just being created, unless it has ended at once."""
    before, after = job(status=Status.QUEUED), job(status=status)
    created, changed = change(None, after), change(before, after)

    assert gets("on_job_change", changed)
    assert gets("on_job_change", created) is status.is_terminal
    assert gets("count_jobs", created)
    assert gets("count_jobs", changed)


@pytest.mark.parametrize("function", READERS, ids=lambda one: str(one.name))
def test_readers_of_the_stream_do_not_get_removed_records(function: Any) -> None:
    assert not gets(function.name, {**change(None, job(status=Status.COMPLETED)), "eventName": "REMOVE"})


def test_new_event_sources_are_created_with_their_settings() -> None:
    arguments = {
        "FunctionName": "arn:aws:lambda:eu-west-1:123456789012:function:headrace-dev-worker_low",
        "EventSourceArn": QUEUE,
        "BatchSize": 10,
    }

    assert settings_of_new("dev", arguments) == arguments | {"FunctionResponseTypes": ["ReportBatchItemFailures"]}


def test_event_sources_of_other_functions_are_left_alone() -> None:
    assert settings_of_new("dev", {"FunctionName": "another", "EventSourceArn": QUEUE}) == {
        "FunctionName": "another",
        "EventSourceArn": QUEUE,
    }


def test_existing_event_sources_get_their_settings_once() -> None:
    """The second deployment changes nothing: an update costs time, and calls."""
    client = FakeLambda(deployed_by_chalice())

    first, second = set_event_sources(cloud_with(client)), set_event_sources(cloud_with(client))

    assert sorted(first) == sorted(function.name for function in READERS + CONSUMERS)
    assert second == []


def test_first_deployment_has_no_event_sources_to_change() -> None:
    assert set_event_sources(cloud_with(FakeLambda({}))) == []


def test_event_source_that_is_being_updated_is_waited_for() -> None:
    """Chalice has just updated it, and AWS refuses a second update meanwhile."""
    client, pauses = FakeLambda(deployed_by_chalice()), list[float]()
    client.states = ["Updating", "Updating", "Enabled", "Updating", "Enabled"]

    set_event_sources(cloud_with(client), pauses.append)

    assert len(pauses) == 3


def test_event_source_that_never_settles_ends_the_deployment() -> None:
    client = FakeLambda(deployed_by_chalice())
    client.states = ["Updating"] * 1000

    with pytest.raises(NotSettled, match="not ready"):
        set_event_sources(cloud_with(client), lambda _: None)


def test_the_same_filter_in_another_notation_is_no_difference() -> None:
    expected = settings_of(BY_NAME["on_job_change"], "dev", STREAM)
    patterns = [json.dumps(json.loads(one["Pattern"]), indent=4) for one in reversed(expected["FilterCriteria"]["Filters"])]
    found = expected | {"FilterCriteria": {"Filters": [{"Pattern": pattern} for pattern in patterns]}}
    found["DestinationConfig"] = {"OnSuccess": {}, **expected["DestinationConfig"]}

    assert differences(found, expected) == {}
    assert differences(found | {"ParallelizationFactor": 1}, expected) == {"ParallelizationFactor": 5}


def test_every_function_that_sends_to_its_own_queue_may_loop() -> None:
    """Lambda drops the seventeenth message of a chain; a job that is held long has more."""
    client = FakeLambda(deployed_by_chalice())

    first, second = allow_loops(cloud_with(client)), allow_loops(cloud_with(client))

    assert sorted(first) == sorted(function.name for function in CONSUMERS)
    assert second == []
    assert set(client.loops.values()) == {"Allow"}


class FakeStages:
    """A REST and a WebSocket stage. moto cannot update the one, nor be imported for the other."""

    def __init__(self) -> None:
        self.rest: dict[str, Any] = {"methodSettings": {}}
        self.websocket: dict[str, Any] = {"DefaultRouteSettings": {"DetailedMetricsEnabled": False}}

    def get_stage(self, **names: str) -> dict[str, Any]:
        return self.rest if "restApiId" in names else self.websocket

    def update_stage(self, **arguments: Any) -> None:
        if "restApiId" not in arguments:
            self.websocket["DefaultRouteSettings"] |= arguments["DefaultRouteSettings"]
            return
        names = {"/*/*/throttling/rateLimit": ("throttlingRateLimit", float), "/*/*/throttling/burstLimit": ("throttlingBurstLimit", int)}
        settings = self.rest["methodSettings"].setdefault("*/*", {"metricsEnabled": False})
        for operation in arguments["patchOperations"]:
            name, of_text = names[operation["path"]]
            settings[name] = of_text(operation["value"])


def test_throttles_are_set_only_where_they_differ() -> None:
    stages = FakeStages()

    class FakeCloud(Cloud):
        def client(self, service: str) -> Any:
            return stages

    cloud = FakeCloud("dev")
    changed = [set_throttles(cloud, "rest", "websocket") for _ in range(2)]

    assert changed == [["REST", "WebSocket"], []]
    assert rest_throttle(cloud, "rest") == REST_THROTTLE["dev"] == Throttle(200, 200)
    assert websocket_throttle(cloud, "websocket") == WEBSOCKET_THROTTLE["dev"] == Throttle(200, 200)


def test_throttles_of_prod_leave_most_of_the_account_to_frames() -> None:
    """REST, WebSocket and frames share 10,000 requests a second, in a bucket of 5,000."""
    rest, websocket = REST_THROTTLE["prod"], WEBSOCKET_THROTTLE["prod"]

    assert rest.rate + websocket.rate <= 4_000
    assert rest.burst + websocket.burst <= 2_500
