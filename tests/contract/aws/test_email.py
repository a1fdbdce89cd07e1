"""E-mail through SES (moto), and how its errors are translated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from botocore.stub import Stubber
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ses.models import ses_backends

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.ses import SesEmailSender
from chalicelib.domain.errors import DeliveryError

SENDER = "headrace@example.com"


@pytest.fixture(autouse=True)
def _moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        aws.reset_clients()
        yield
    aws.reset_clients()


def test_email_is_sent_through_ses() -> None:
    aws.client("ses").verify_email_identity(EmailAddress=SENDER)

    SesEmailSender(SENDER).send("ops@acme.com", "Headrace: fertig ✓", "Job is completed.")

    (sent,) = ses_backends[DEFAULT_ACCOUNT_ID]["eu-central-1"].sent_messages
    assert (sent.source, sent.destinations["ToAddresses"]) == (SENDER, ["ops@acme.com"])
    assert (sent.subject, sent.body) == ("Headrace: fertig ✓", "Job is completed.")


def test_unverified_sender_fails_permanently() -> None:
    with pytest.raises(DeliveryError, match="MessageRejected") as refused:
        SesEmailSender(SENDER).send("ops@acme.com", "s", "t")

    assert refused.value.final


def test_sending_without_a_configured_sender_fails_permanently() -> None:
    assert not SesEmailSender(None).is_configured
    with pytest.raises(DeliveryError, match="not configured") as refused:
        SesEmailSender(None).send("ops@acme.com", "s", "t")

    assert refused.value.final


@pytest.mark.parametrize(("code", "status"), [("Throttling", 400), ("ServiceUnavailable", 503), ("SomethingNew", 400)])
def test_transient_and_unknown_ses_errors_are_retryable(code: str, status: int) -> None:
    client = aws.client("ses", attempts=1)
    with Stubber(client) as stub:
        stub.add_client_error("send_email", code, http_status_code=status)
        with pytest.raises(DeliveryError) as refused:
            SesEmailSender(SENDER).send("ops@acme.com", "s", "t")

    assert not refused.value.final
