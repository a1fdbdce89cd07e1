"""The record of a deployment in the bucket: every machine deploys the same stage, one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from chalice.config import DeployedResources
from chalice.deploy import models
from chalice.deploy.planner import RemoteState
from moto import mock_aws

from infra.cloud import Cloud
from infra.deployment import record
from infra.deployment.record import LOCK, LOCK_TIME, RECORD, RecordMissing, StageLocked, exclusive, record_file, shared_record

BUCKET = "headrace-dev-content-123456789012"
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
DEPLOYED = {
    "schema_version": "2.0",
    "backend": "api",
    "resources": [
        {"name": "rest_api", "resource_type": "rest_api", "rest_api_id": "abc", "rest_api_url": "https://abc/api/"},
        {"name": "websocket_api", "resource_type": "websocket_api", "websocket_api_id": "def", "websocket_api_url": "wss://def/api/"},
        {"name": "worker_low-sqs-event-source", "resource_type": "sqs_event", "queue": "headrace-dev-low", "event_uuid": "ghi"},
    ],
}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(record, "_has_functions", lambda _: False)
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield Cloud("dev")


@pytest.fixture
def checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Work in one of several checkouts: `checkouts("first")`."""

    def work_in(name: str) -> None:
        monkeypatch.setattr(record, "CHALICE_FOLDER", tmp_path / name / ".chalice")

    return work_in


def chalice_deploys(content: dict[str, Any] = DEPLOYED) -> None:
    record_file("dev").parent.mkdir(parents=True, exist_ok=True)
    record_file("dev").write_text(json.dumps(content))


def stored(key: str) -> Any:
    return json.loads(boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read())


def test_a_second_checkout_knows_what_the_first_one_deployed(aws: Cloud, checkouts: Any) -> None:
    checkouts("first")
    with shared_record(aws, BUCKET):
        chalice_deploys()
    checkouts("second")
    assert not record_file("dev").exists()

    with shared_record(aws, BUCKET):
        known = json.loads(record_file("dev").read_text())

    assert known == DEPLOYED


def test_chalice_makes_no_new_apis_in_the_second_checkout(aws: Cloud, checkouts: Any) -> None:
    """It asks AWS only about those that its record names."""
    checkouts("first")
    with shared_record(aws, BUCKET):
        chalice_deploys()
    checkouts("second")

    class Client:
        def get_rest_api(self, api_id: str) -> bool:
            return api_id == "abc"

        def websocket_api_exists(self, api_id: str) -> bool:
            return api_id == "def"

    def known(resources: dict[str, Any] | None) -> list[bool]:
        state = RemoteState(Client(), DeployedResources(resources) if resources else DeployedResources.empty())
        rest = models.RestAPI("rest_api", {}, "", "api", "REGIONAL", None)
        websocket = models.WebsocketAPI("websocket_api", "headrace-websocket-api", "api", [], None, None, None)
        return [state.resource_exists(rest), state.resource_exists(websocket)]

    without = known(None)
    with shared_record(aws, BUCKET):
        with_record = known(json.loads(record_file("dev").read_text()))

    assert (without, with_record) == ([False, False], [True, True])


def test_the_record_in_the_bucket_replaces_an_older_one_of_the_checkout(aws: Cloud, checkouts: Any) -> None:
    checkouts("first")
    with shared_record(aws, BUCKET):
        chalice_deploys()
    checkouts("second")
    chalice_deploys({**DEPLOYED, "resources": []})

    with shared_record(aws, BUCKET):
        assert json.loads(record_file("dev").read_text()) == DEPLOYED


def test_the_record_of_a_checkout_from_before_is_kept(aws: Cloud, checkouts: Any) -> None:
    """The stage was deployed by a version that kept it in the checkout only."""
    checkouts("first")
    chalice_deploys()

    with shared_record(aws, BUCKET):
        pass

    assert stored(RECORD) == DEPLOYED


def test_a_deployment_that_fails_is_recorded_as_far_as_it_came(aws: Cloud, checkouts: Any) -> None:
    checkouts("first")

    def fails() -> None:
        with shared_record(aws, BUCKET):
            chalice_deploys()
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError):
        fails()

    assert stored(RECORD) == DEPLOYED


def test_a_stage_whose_record_is_lost_is_not_deployed_anew(aws: Cloud, checkouts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chalice would make other APIs beside those that are in use."""
    checkouts("second")
    monkeypatch.setattr(record, "_has_functions", lambda _: True)

    with pytest.raises(RecordMissing, match="Deploy it once from the checkout"), shared_record(aws, BUCKET):
        pass


def test_a_second_deployment_is_refused_and_told_who_holds_the_lock(aws: Cloud) -> None:
    with exclusive(aws, BUCKET, lambda: NOW):
        held = stored(LOCK)
        with pytest.raises(StageLocked) as refused, exclusive(aws, BUCKET, lambda: NOW + timedelta(minutes=59)):
            pass

    assert held["holder"] in str(refused.value)
    assert "2026-11-28T12:00:00 UTC" in str(refused.value)
    assert f"s3://{BUCKET}/{LOCK}" in str(refused.value)


def test_the_lock_is_given_back_after_a_deployment_and_after_a_failed_one(aws: Cloud) -> None:
    with pytest.raises(RuntimeError), exclusive(aws, BUCKET):
        raise RuntimeError("failed")
    with exclusive(aws, BUCKET):
        pass

    assert boto3.client("s3").list_objects_v2(Bucket=BUCKET).get("KeyCount") == 0


def test_the_lock_of_a_machine_that_died_is_taken_over_when_its_time_is_over(aws: Cloud) -> None:
    dead = exclusive(aws, BUCKET, lambda: NOW)
    dead.__enter__()

    with exclusive(aws, BUCKET, lambda: NOW + LOCK_TIME):
        mine = stored(LOCK)
        dead.__exit__(None, None, None)  # it lives after all, and must not give back what is no longer its own

        assert stored(LOCK) == mine
