"""Fixtures that run a test twice: on the in-memory twins, and on the real adapters with moto."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
from moto import mock_aws

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.memory.all import InMemoryAdapters
from chalicelib.adapters.stores import DynamoStores
from infra.naming import bucket_name
from infra.tables import TABLES, create_table_arguments

STAGE = "dev"
ACCOUNT = "123456789012"  # moto's

LoseResponse = Callable[[str], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def dynamo_stores() -> Iterator[DynamoStores]:
    """The stores of a stage whose tables and bucket exist."""
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            environment.delenv(name, raising=False)
        aws.reset_clients()
        for table in TABLES:
            aws.client("dynamodb").create_table(**create_table_arguments(table, STAGE))
        aws.client("s3").create_bucket(Bucket=bucket_name(STAGE, ACCOUNT))
        yield DynamoStores(STAGE)
    aws.reset_clients()


@pytest.fixture(params=["memory", "dynamo"])
def stores(request: pytest.FixtureRequest) -> Any:
    """An object with the stores as attributes: `stores.jobs`, `stores.chunks`."""
    return InMemoryAdapters() if request.param == "memory" else request.getfixturevalue("dynamo_stores")


@pytest.fixture
def lose_response(stores: Any) -> LoseResponse:
    """Lose the response of one request: `with lose_response("PutItem")`. It has its effect, and the SDK repeats it."""
    return _repeat_once if isinstance(stores, DynamoStores) else lambda _: nullcontext()


@contextmanager
def _repeat_once(operation: str) -> Iterator[None]:
    event, repeated = f"needs-retry.dynamodb.{operation}", []

    def retry_once(**_: object) -> float | None:
        if repeated:
            return None
        repeated.append(operation)
        return 0.0

    events = aws.client("dynamodb").meta.events
    events.register_first(event, retry_once)
    try:
        yield
    finally:
        events.unregister(event, retry_once)
    assert repeated, f"no {operation} was sent"
