"""The OpenAI credentials in Secrets Manager (moto)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

import pytest
from botocore.stub import Stubber
from moto import mock_aws

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.names import openai_secret_name
from chalicelib.adapters.aws.openai_credentials import Credentials, SecretsManagerCredentials, parse
from chalicelib.adapters.memory.clock import ManualClock
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.failures import NotConfigured
from tests.kit.aws_calls import counted_calls


@pytest.fixture(autouse=True)
def _moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        aws.reset_clients()
        yield
    aws.reset_clients()


def store(secret: str) -> None:
    """Create or replace the secret of the stage."""
    secrets = aws.client("secretsmanager")
    try:
        secrets.create_secret(Name=openai_secret_name("dev"), SecretString=secret)
    except secrets.exceptions.ResourceExistsException:
        secrets.put_secret_value(SecretId=openai_secret_name("dev"), SecretString=secret)


def test_openai_key_is_cached_for_five_minutes() -> None:
    clock = ManualClock()
    credentials = SecretsManagerCredentials("dev", clock)
    store("sk-old")
    assert credentials().api_key == "sk-old"

    store("sk-new")

    clock.advance(299)
    assert credentials().api_key == "sk-old"
    clock.advance(1)
    assert credentials().api_key == "sk-new"


def test_forgotten_openai_key_is_read_again() -> None:
    credentials = SecretsManagerCredentials("dev", ManualClock())
    store("sk-old")
    credentials()
    store("sk-new")

    credentials.forget()

    assert credentials().api_key == "sk-new"


def test_missing_secret_is_not_configured_and_looked_for_again_after_seconds() -> None:
    clock = ManualClock()
    credentials = SecretsManagerCredentials("dev", clock)
    with pytest.raises(NotConfigured, match="No OpenAI key"):
        credentials()

    store("sk-1")

    clock.advance(5)
    assert credentials().api_key == "sk-1"


def ask(credentials: SecretsManagerCredentials, clock: ManualClock, seconds: int, *, refused: bool = False) -> None:
    """Ask ten times a second, as the jobs of an environment do."""
    for _ in range(seconds * 10):
        with suppress(NotConfigured):
            credentials()
        if refused:
            credentials.forget()
        clock.advance(0.1)


def test_openai_key_is_read_twelve_times_an_hour_however_many_jobs_ask() -> None:
    clock = ManualClock()
    store("sk-1")
    with counted_calls("secretsmanager", "GetSecretValue") as calls:
        ask(SecretsManagerCredentials("dev", clock), clock, 3_600)

    assert len(calls) == 12


def test_missing_openai_key_is_looked_for_every_five_seconds_at_most() -> None:
    """Job types with a fallback ask for it with each job."""
    clock = ManualClock()
    with counted_calls("secretsmanager", "GetSecretValue") as calls:
        ask(SecretsManagerCredentials("dev", clock), clock, 60)

    assert len(calls) == 12


def test_refused_openai_key_is_read_again_every_fifteen_seconds_at_most() -> None:
    """However many jobs OpenAI refuses with it."""
    clock = ManualClock()
    store("sk-withdrawn")
    with counted_calls("secretsmanager", "GetSecretValue") as calls:
        ask(SecretsManagerCredentials("dev", clock), clock, 60, refused=True)

    assert len(calls) == 1 + 60 // 15


@pytest.mark.parametrize("empty", ["", "  ", "{}", '{"api_key": ""}', '{"api_key": null}', "null", '""', "sk-abc…xyz"])
def test_a_secret_without_a_key_is_not_configured(empty: str) -> None:
    with pytest.raises(NotConfigured):
        parse(empty)


def test_secret_is_a_json_object_or_a_bare_key() -> None:
    full = {"api_key": "sk-1", "base_url": "https://eu.api.openai.com/v1", "organization": "org", "project": "proj", "other": 1}

    assert parse(json.dumps(full)) == Credentials("sk-1", "https://eu.api.openai.com/v1", "org", "proj")
    assert parse(" sk-1\n") == parse('"sk-1"') == Credentials("sk-1")


def test_deleted_secret_is_not_configured() -> None:
    store("sk-1")
    aws.client("secretsmanager").delete_secret(SecretId=openai_secret_name("dev"))

    with pytest.raises(NotConfigured):
        SecretsManagerCredentials("dev", ManualClock())()


def test_credentials_repr_hides_the_key() -> None:
    assert "sk-1" not in repr(Credentials("sk-1"))


def test_known_key_is_kept_while_secrets_manager_is_unavailable() -> None:
    clock = ManualClock()
    credentials = SecretsManagerCredentials("dev", clock)
    with Stubber(aws.client("secretsmanager")) as secrets:
        secrets.add_client_error("get_secret_value", "InternalServiceError", http_status_code=500)
        with pytest.raises(Unavailable):
            credentials()
    store("sk-1")
    credentials()

    clock.advance(400)
    with Stubber(aws.client("secretsmanager")) as secrets:
        secrets.add_client_error("get_secret_value", "InternalServiceError", http_status_code=500)
        assert credentials().api_key == "sk-1"
