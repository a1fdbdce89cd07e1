"""The OpenAI key of a stage is stored in Secrets Manager and survives deployments."""

from __future__ import annotations

import json
from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

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
