"""Signing secrets and recipient allowlists, on the twin and on Secrets Manager (moto)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.names import tenant_secret_name
from chalicelib.adapters.aws.notification_settings import ADDRESSES, SECRETS, SecretsManagerNotificationSettings
from chalicelib.adapters.memory.clock import ManualClock
from chalicelib.adapters.memory.notifications import MemoryNotificationSettings
from chalicelib.domain.errors import UnreadableRecord
from chalicelib.domain.notifications.recipients import RecipientAllowlist, SigningSecrets

ONE, TWO = SigningSecrets(current="whsec_b25l"), SigningSecrets(current="whsec_dHdv", previous="whsec_b25l", rotated_at=5)


@pytest.fixture(params=["memory", "aws"])
def notification_settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if request.param == "memory":
        yield MemoryNotificationSettings()
        return
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        aws.reset_clients()
        yield SecretsManagerNotificationSettings("dev", ManualClock())
    aws.reset_clients()


def test_create_does_not_overwrite_existing_signing_secrets(notification_settings: Any) -> None:
    """Two callers that create them at the same time get the same ones."""
    assert notification_settings.signing_secrets("acme") is None

    assert notification_settings.create_signing_secrets("acme", ONE) == ONE
    assert notification_settings.create_signing_secrets("acme", TWO) == ONE
    assert notification_settings.signing_secrets("acme", fresh=True) == ONE
    assert notification_settings.signing_secrets("other") is None


def test_put_replaces_the_signing_secrets(notification_settings: Any) -> None:
    notification_settings.create_signing_secrets("acme", ONE)

    notification_settings.put_signing_secrets("acme", TWO)

    assert notification_settings.signing_secrets("acme") == TWO
    assert notification_settings.signing_secrets("acme", fresh=True) == TWO


def test_recipient_allowlist_round_trips(notification_settings: Any) -> None:
    """Changing it leaves the signing secrets as they are."""
    allowlist = RecipientAllowlist(emails=("ops@acme.com",), slack={"alerts": "https://hooks.slack.com/services/T/B/x"})
    assert notification_settings.allowlist("acme") == RecipientAllowlist()
    notification_settings.create_signing_secrets("acme", ONE)

    notification_settings.put_allowlist("acme", allowlist)
    assert notification_settings.allowlist("acme", fresh=True) == allowlist
    notification_settings.put_allowlist("acme", RecipientAllowlist())

    assert notification_settings.allowlist("acme") == RecipientAllowlist()
    assert notification_settings.signing_secrets("acme", fresh=True) == ONE


@pytest.mark.parametrize("tenant", ["a/b", "zweigstelle münchen", "x" * 128, "日" * 128, "+2F", "acme-abc123", "\ud800"])
def test_signing_secrets_are_stored_for_any_tenant_name(notification_settings: Any, tenant: str) -> None:
    notification_settings.put_signing_secrets(tenant, ONE)

    assert notification_settings.signing_secrets(tenant, fresh=True) == ONE


def test_replaced_secrets_reach_other_processes_within_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        aws.reset_clients()
        clock = ManualClock()
        first, second = SecretsManagerNotificationSettings("dev", clock), SecretsManagerNotificationSettings("dev", clock)
        first.create_signing_secrets("acme", ONE)
        assert second.signing_secrets("acme") == ONE

        first.put_signing_secrets("acme", TWO)

        clock.advance(59)
        assert second.signing_secrets("acme") == ONE
        assert second.signing_secrets("acme", fresh=True) == TWO
        clock.advance(60)
        assert second.signing_secrets("acme") == TWO
    aws.reset_clients()


@given(st.text(min_size=1, max_size=128), st.text(min_size=1, max_size=128))
def test_secret_names_are_valid_and_unique_for_each_tenant(one: str, other: str) -> None:
    names = [tenant_secret_name("dev", tenant, what) for tenant in {one, other} for what in (SECRETS, ADDRESSES)]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"headrace/dev/tenants/[A-Za-z0-9_.@=+-]+/[a-z]+", name) and len(name) <= 512 for name in names)


@pytest.fixture
def secrets_manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretsManagerNotificationSettings]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        aws.reset_clients()
        yield SecretsManagerNotificationSettings("dev", ManualClock())
    aws.reset_clients()


def _stored(name: str) -> Any:
    return json.loads(aws.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])


def test_what_a_newer_version_put_into_a_secret_is_skipped_and_kept(secrets_manager: SecretsManagerNotificationSettings) -> None:
    """A rotation by an older version must not remove it."""
    allowlist = RecipientAllowlist(emails=("a@b.example",), slack={})
    secrets_manager.create_signing_secrets("acme", ONE)
    secrets_manager.put_allowlist("acme", allowlist)
    names = [tenant_secret_name("dev", "acme", kind) for kind in (SECRETS, ADDRESSES)]
    for name in names:
        newer = {**_stored(name), "of_tomorrow": {"a": 1}}
        aws.client("secretsmanager").put_secret_value(SecretId=name, SecretString=json.dumps(newer))

    assert secrets_manager.signing_secrets("acme", fresh=True) == ONE
    assert secrets_manager.allowlist("acme", fresh=True) == allowlist
    secrets_manager.put_signing_secrets("acme", TWO)
    secrets_manager.put_allowlist("acme", RecipientAllowlist())

    assert [_stored(name)["of_tomorrow"] for name in names] == [{"a": 1}, {"a": 1}]
    assert _stored(names[0])["current"] == TWO.current


@pytest.mark.parametrize("text", ["", "text", "[]", "{}", '{"current": "x", "rotated_at": "of_tomorrow"}'])
def test_signing_secrets_that_cannot_be_read_are_refused_by_name(secrets_manager: SecretsManagerNotificationSettings, text: str) -> None:
    """New ones must not replace them: receivers know the old ones. The error shows no secret."""
    name = tenant_secret_name("dev", "acme", SECRETS)
    aws.client("secretsmanager").create_secret(Name=name, SecretString=text or " ")

    with pytest.raises(UnreadableRecord) as refused:
        secrets_manager.signing_secrets("acme")

    assert str(refused.value) == str(UnreadableRecord())
