"""Signing secrets and recipient allowlists, on the twin and on Secrets Manager (moto)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.names import tenant_secret_name
from chalicelib.adapters.aws.notification_settings import (
    ADDRESSES,
    MAX_CACHED,
    SECRETS,
    CachedSecret,
    SecretsManagerNotificationSettings,
)
from chalicelib.adapters.memory.clock import ManualClock
from chalicelib.adapters.memory.notifications import MemoryNotificationSettings, MemorySecretVersions
from chalicelib.domain.errors import Throttled, UnreadableRecord
from chalicelib.domain.notifications.recipients import RecipientAllowlist, SigningSecrets
from tests.kit.aws_calls import counted_calls

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
        yield SecretsManagerNotificationSettings("dev", ManualClock(), MemorySecretVersions())
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


@dataclass
class Stage:
    """Processes of one stage on Secrets Manager (moto), with a clock and with the versions that they share."""

    clock: ManualClock = field(default_factory=ManualClock)
    versions: MemorySecretVersions = field(default_factory=MemorySecretVersions)

    def process(self) -> SecretsManagerNotificationSettings:
        return SecretsManagerNotificationSettings("dev", self.clock, self.versions)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        aws.reset_clients()
        yield Stage()
    aws.reset_clients()


def test_replaced_secrets_reach_other_processes_within_half_a_minute(stage: Stage) -> None:
    """At once where they are asked for afresh."""
    first, second = stage.process(), stage.process()
    first.create_signing_secrets("acme", ONE)
    assert second.signing_secrets("acme") == ONE

    first.put_signing_secrets("acme", TWO)

    stage.clock.advance(29)
    assert second.signing_secrets("acme") == ONE
    assert second.signing_secrets("acme", fresh=True) == TWO
    assert stage.process().signing_secrets("acme") == TWO
    first.put_signing_secrets("acme", ONE)
    stage.clock.advance(30)
    assert second.signing_secrets("acme") == ONE


def test_removed_recipient_is_unknown_to_other_processes_within_half_a_minute(stage: Stage) -> None:
    """Also the first allowlist of a tenant that had none."""
    first, second = stage.process(), stage.process()
    assert second.allowlist("acme") == RecipientAllowlist()
    first.put_allowlist("acme", RecipientAllowlist(emails=("ops@acme.com", "ann@acme.com")))
    stage.clock.advance(30)
    assert second.allowlist("acme").emails == ("ops@acme.com", "ann@acme.com")

    first.put_allowlist("acme", RecipientAllowlist(emails=("ops@acme.com",)))

    stage.clock.advance(30)
    assert second.allowlist("acme").emails == ("ops@acme.com",)


def test_unchanged_secret_is_read_four_times_an_hour_however_often_it_is_used(stage: Stage) -> None:
    """Its version is compared at most twice a minute, which costs a fortieth."""
    stage.process().put_signing_secrets("acme", ONE)
    process, compared = stage.process(), []
    real = stage.versions.get
    stage.versions.get = lambda name, *, consistent=False: (compared.append(name), real(name))[1]  # type: ignore[method-assign, func-returns-value]

    with counted_calls("secretsmanager", "GetSecretValue") as read:
        for _ in range(3_600):
            assert process.signing_secrets("acme") == ONE
            stage.clock.advance(1)

    assert (len(read), len(compared)) == (4, 120)


def test_absent_allowlist_is_read_once_a_minute_however_often_it_is_asked_for_afresh(stage: Stage) -> None:
    """Each submission with a recipient that is not allowed asks afresh."""
    process = stage.process()
    with counted_calls("secretsmanager", "GetSecretValue") as read:
        for _ in range(600):
            process.allowlist("acme", fresh=True)
            stage.clock.advance(0.1)

    assert len(read) == 1


def test_ten_thousand_tenants_are_cached_and_no_more(stage: Stage) -> None:
    process = stage.process()
    process.put_signing_secrets("first", ONE)
    for number in range(MAX_CACHED + 10):
        process._cache.put(f"other-{number}", CachedSecret(None, 0, 0))

    assert len(process._cache) == MAX_CACHED
    with counted_calls("secretsmanager", "GetSecretValue") as read:
        assert process.signing_secrets("first") == ONE
    assert len(read) == 1


@pytest.mark.parametrize("failing", [0, 1])
def test_change_interrupted_between_version_and_secret_is_seen_by_others(stage: Stage, failing: int) -> None:
    """The version is stored before the secret and after it: whatever is lost, the two differ and the secret is read anew."""
    first, second = stage.process(), stage.process()
    first.put_allowlist("acme", RecipientAllowlist(emails=("ops@acme.com",)))
    assert second.allowlist("acme").emails == ("ops@acme.com",)
    real, calls = stage.versions.put, []

    def put(name: str, version: str) -> None:
        calls.append(name)
        if len(calls) - 1 == failing:
            raise Throttled
        real(name, version)

    stage.versions.put = put  # type: ignore[method-assign]
    with pytest.raises(Throttled):
        first.put_allowlist("acme", RecipientAllowlist())
    stage.clock.advance(30)

    assert second.allowlist("acme").emails == (("ops@acme.com",) if failing == 0 else ())  # the first failure stored nothing


def test_secret_that_lost_a_race_is_read_anew(stage: Stage) -> None:
    """Two admins at once: the versions and the secrets are stored in different orders."""
    first, second, reader = stage.process(), stage.process(), stage.process()
    real = stage.versions.put
    rival: list[str] = []

    def put(name: str, version: str) -> None:
        real(name, version)
        if not rival:
            rival.append(version)
            second.put_allowlist("acme", RecipientAllowlist(emails=("ops@acme.com",)))
            assert reader.allowlist("acme").emails == ("ops@acme.com",)

    stage.versions.put = put  # type: ignore[method-assign]
    first.put_allowlist("acme", RecipientAllowlist())  # stored last, so it counts
    stage.clock.advance(30)

    assert reader.allowlist("acme").emails == ()


def test_secret_of_an_older_version_is_used_for_a_minute(stage: Stage) -> None:
    """It has no version of its own, so its changes are only seen by reading it."""
    name = tenant_secret_name("dev", "acme", SECRETS)
    secrets = aws.client("secretsmanager")
    secrets.create_secret(Name=name, SecretString='{"current": "whsec_b25l"}')
    process = stage.process()
    assert process.signing_secrets("acme") == ONE
    secrets.put_secret_value(SecretId=name, SecretString='{"current": "whsec_dHdv", "previous": "whsec_b25l", "rotated_at": 5}')

    stage.clock.advance(60)

    assert process.signing_secrets("acme") == TWO


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
        yield SecretsManagerNotificationSettings("dev", ManualClock(), MemorySecretVersions())
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
