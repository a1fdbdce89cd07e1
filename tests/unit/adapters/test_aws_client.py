"""Access to AWS: one client per configuration, and AWS errors translated to domain errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore import exceptions as botocore
from botocore.retries.standard import ThrottledRetryableChecker, TransientRetryableChecker

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.domain.errors import Throttled, Unavailable
from chalicelib.services.worker.process_messages import LEASE_MS


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    aws.reset_clients()
    yield
    aws.reset_clients()


def answer(code: str, status: int = 400, **more: Any) -> botocore.ClientError:
    return botocore.ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}, "Operation")  # type: ignore[arg-type]


def cancelled(*codes: str) -> botocore.ClientError:
    return answer("TransactionCanceledException", CancellationReasons=[{"Code": code} for code in codes])


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (answer("ThrottlingException"), Throttled),
        (answer("ProvisionedThroughputExceededException"), Throttled),
        (answer("TransactionConflictException"), Throttled),  # a write that conflicts with a transaction
        (answer("SlowDown", 503), Throttled),
        (answer("OverLimit", 403), Throttled),  # SQS: too many messages are in flight
        (answer("RequestTimeout", 400), Unavailable),  # S3: an upload stalled
        (answer("Anything", 429), Throttled),
        (cancelled("None", "TransactionConflict"), Throttled),
        (cancelled("ConditionalCheckFailed", "TransactionConflict"), None),  # the failed condition decides
        (cancelled("ConditionalCheckFailed", "None"), None),
        (answer("InternalServerError", 500), Unavailable),
        (answer("ConditionalCheckFailedException"), None),
        (answer("AccessDeniedException", 403), None),  # an error of the deployment, not a transient one
        (botocore.ReadTimeoutError(endpoint_url="x"), Unavailable),
        (botocore.ConnectTimeoutError(endpoint_url="x"), Unavailable),
        (botocore.EndpointConnectionError(endpoint_url="x"), Unavailable),
        (botocore.ConnectionClosedError(endpoint_url="x"), Unavailable),
        (botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2), Unavailable),
        (botocore.ParamValidationError(report="x"), None),
        (ValueError(), None),
    ],
)
def test_only_transient_aws_errors_are_translated(exc: Exception, kind: type[Exception] | None) -> None:
    known = aws.translate_error(exc)

    assert (type(known) if known else None) is kind


@pytest.mark.parametrize(
    ("exc", "conflict"),
    [
        (answer("TransactionConflictException"), True),
        (cancelled("None", "TransactionConflict"), True),
        (cancelled("TransactionConflict", "TransactionConflict"), True),
        (cancelled("TransactionConflict", "ThrottlingError"), False),
        (cancelled("TransactionConflict", "ConditionalCheckFailed"), False),
        (cancelled("None"), False),
        (answer("ThrottlingException"), False),
        (answer("ConditionalCheckFailedException"), False),
        (None, False),
    ],
)
def test_a_conflict_is_told_from_a_throttle(exc: BaseException | None, conflict: bool) -> None:
    """A conflict is over in a moment; a throttle may last."""
    assert aws.is_conflict(exc) is conflict


def test_translated_errors_keep_their_cause_and_others_pass_unchanged() -> None:
    throttle, denied = answer("ThrottlingException"), answer("AccessDeniedException")

    with pytest.raises(Throttled) as raised, aws.translate_errors():
        raise throttle
    assert raised.value.__cause__ is throttle

    with pytest.raises(botocore.ClientError) as other, aws.translate_errors():
        raise denied
    assert other.value is denied


def test_all_threads_share_one_client_per_configuration() -> None:
    clients: list[Any] = []
    threads = [threading.Thread(target=lambda: clients.append(aws.client("sqs"))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({id(client) for client in clients}) == 1
    assert aws.client("sqs", endpoint_url="http://localhost:1") is not clients[0]


def test_every_error_code_that_botocore_retries_is_translated() -> None:
    """After botocore's last retry it must not look like an internal error."""
    codes = [*ThrottledRetryableChecker._THROTTLED_ERROR_CODES, *TransientRetryableChecker._TRANSIENT_ERROR_CODES]

    assert [code for code in codes if aws.translate_error(answer(code)) is None] == []


def test_an_aws_call_with_all_its_retries_ends_before_a_lease_expires() -> None:
    """Three attempts, with botocore's pauses of at most one and two seconds between them."""
    config = aws.client("dynamodb").meta.config

    assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) == (1.0, 3.0, 3)
    longest = aws.ATTEMPTS * (aws.CONNECT_TIMEOUT + aws.READ_TIMEOUT) + 1 + 2
    assert longest * 1000 < LEASE_MS
    assert sum(dynamodb.CONFLICT_BACKOFF * 2**attempt for attempt in range(1, dynamodb.CONFLICT_TRIES)) < 1
