"""Signing secrets and recipient allowlists, on the twin and on Secrets Manager (moto)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.notification_settings import ADDRESSES, SECRETS, SecretsManagerNotificationSettings, secret_name
from chalicelib.adapters.memory.clock import ManualClock
from chalicelib.adapters.memory.notifications import MemoryNotificationSettings
from chalicelib.domain.notifications.recipients import RecipientAllowlist, SigningSecrets

ONE, TWO = SigningSecrets(current="whsec_b25l"), SigningSecrets(current="whsec_dHdv", previous="whsec_b25l", rotated_at=5)


@pytest.fixture(params=["memory", "aws"])
def correspondence(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if request.param == "memory":
        yield MemoryNotificationSettings()
        return
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        aws.reset_clients()
        yield SecretsManagerNotificationSettings("dev", ManualClock())
    aws.reset_clients()


def test_the_first_seal_stays(correspondence: Any) -> None:
    """Two who need one at the same moment have the same one."""
    assert correspondence.signing_secrets("acme") is None

    assert correspondence.create_signing_secrets("acme", ONE) == ONE
    assert correspondence.create_signing_secrets("acme", TWO) == ONE
    assert correspondence.signing_secrets("acme", fresh=True) == ONE
    assert correspondence.signing_secrets("other") is None


def test_a_seal_is_put_in_the_place_of_another(correspondence: Any) -> None:
    correspondence.create_signing_secrets("acme", ONE)

    correspondence.put_signing_secrets("acme", TWO)

    assert correspondence.signing_secrets("acme") == TWO
    assert correspondence.signing_secrets("acme", fresh=True) == TWO


def test_an_address_book_is_read_as_it_was_written(correspondence: Any) -> None:
    """And changing it leaves the seal alone."""
    book = RecipientAllowlist(emails=("ops@acme.com",), slack={"alerts": "https://hooks.slack.com/services/T/B/x"})
    assert correspondence.allowlist("acme") == RecipientAllowlist()
    correspondence.create_signing_secrets("acme", ONE)

    correspondence.put_allowlist("acme", book)
    assert correspondence.allowlist("acme", fresh=True) == book
    correspondence.put_allowlist("acme", RecipientAllowlist())

    assert correspondence.allowlist("acme") == RecipientAllowlist()
    assert correspondence.signing_secrets("acme", fresh=True) == ONE


@pytest.mark.parametrize("tenant", ["a/b", "zweigstelle münchen", "x" * 128, "日" * 128, "+2F", "acme-abc123", "\ud800"])
def test_any_name_of_a_tenant_will_do(correspondence: Any, tenant: str) -> None:
    correspondence.put_signing_secrets(tenant, ONE)

    assert correspondence.signing_secrets(tenant, fresh=True) == ONE


def test_another_environment_hears_of_a_change_within_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        aws.reset_clients()
        clock = ManualClock()
        here, there = SecretsManagerNotificationSettings("dev", clock), SecretsManagerNotificationSettings("dev", clock)
        here.create_signing_secrets("acme", ONE)
        assert there.signing_secrets("acme") == ONE

        here.put_signing_secrets("acme", TWO)

        clock.advance(59)
        assert there.signing_secrets("acme") == ONE
        assert there.signing_secrets("acme", fresh=True) == TWO
        clock.advance(60)
        assert there.signing_secrets("acme") == TWO
    aws.reset_clients()


@given(st.text(min_size=1, max_size=128), st.text(min_size=1, max_size=128))
def test_each_tenant_has_a_name_of_its_own(one: str, other: str) -> None:
    names = [secret_name("dev", tenant, what) for tenant in {one, other} for what in (SECRETS, ADDRESSES)]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"headrace/dev/tenants/[A-Za-z0-9_.@=+-]+/[a-z]+", name) and len(name) <= 512 for name in names)
