"""The OpenAI key of a stage is stored in Secrets Manager and survives deployments."""

from __future__ import annotations

import json
from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from chalicelib.adapters.aws.openai_credentials import MISSING_TTL_MS
from chalicelib.domain.queues.causes import MISSING_KEY, shard_of
from chalicelib.ports import Shard
from chalicelib.services.scheduling.visits import Call, ShardMessage
from infra import commands
from infra import openai_key as keys
from infra.cloud import Cloud
from infra.naming import openai_secret_name
from infra.openai_key import ensure_openai_secret, put_openai_credentials


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield Cloud("dev")


def stored(stage: str) -> dict[str, str]:
    value: dict[str, str] = json.loads(boto3.client("secretsmanager").get_secret_value(SecretId=openai_secret_name(stage))["SecretString"])
    return value


def test_a_new_stage_gets_an_empty_openai_secret(aws: Cloud) -> None:
    assert ensure_openai_secret(aws) is False
    assert stored("dev") == {"api_key": ""}


def test_a_deployment_keeps_the_openai_key(aws: Cloud) -> None:
    put_openai_credentials(aws, {"api_key": "sk-1"})

    assert ensure_openai_secret(aws) is True
    assert stored("dev") == {"api_key": "sk-1"}


def test_only_a_different_key_is_reported_as_a_change(aws: Cloud) -> None:
    """Workers are restarted after a change."""
    changes = [put_openai_credentials(aws, {"api_key": key}) for key in ("sk-1", "sk-1", "sk-2")]

    assert changes == [True, False, True]


def received(queue: str) -> list[ShardMessage | None]:
    client = boto3.client("sqs")
    url = client.get_queue_url(QueueName=queue)["QueueUrl"]
    messages = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0).get("Messages", [])
    return [ShardMessage.from_json(message["Body"]) for message in messages]


def test_a_stored_key_asks_the_scheduler_to_look_at_the_jobs_that_wait_for_it(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later than functions remember that there was no key, and it counts for a loop that looked before."""
    boto3.client("sqs").create_queue(QueueName="headrace-dev-schedule")
    monkeypatch.setattr(keys, "WAKE_DELAY_SECONDS", 0)  # moto would have to wait

    assert keys.wake_waiting_jobs(aws) is True

    (message,) = received("headrace-dev-schedule")
    assert message is not None
    assert (message.shard, message.call) == (shard_of(MISSING_KEY, 2), Call.VISIT)
    asleep = Shard(number=message.shard, owner="x", until=0, asleep_until=message.at + 60_000, since=message.at - 60_000)
    assert message.counts(asleep, message.at) is True


def test_the_request_arrives_after_functions_have_forgotten_that_there_was_no_key() -> None:
    assert keys.WAKE_DELAY_SECONDS * 1000 > MISSING_TTL_MS


def test_a_stage_without_queues_says_that_nobody_was_asked(aws: Cloud) -> None:
    assert keys.wake_waiting_jobs(aws) is False


@pytest.mark.parametrize(("queues", "soon"), [(["headrace-dev-schedule"], "in some seconds"), ([], "within a minute")])
def test_the_command_says_when_waiting_jobs_start(
    aws: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], queues: list[str], soon: str
) -> None:
    for queue in queues:
        boto3.client("sqs").create_queue(QueueName=queue)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123")
    monkeypatch.setattr(commands, "check_api", lambda *_: None)

    commands.openai_key("dev")

    said = capsys.readouterr().out
    assert f"Jobs that wait for it start {soon}." in said
    assert "sk-secret" not in said
