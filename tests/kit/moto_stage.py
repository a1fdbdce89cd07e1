"""A stage on moto: its tables, queues, bucket and API keys, and the real adapters in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from threading import RLock
from typing import Any

import pytest
from moto import mock_aws
from moto.dynamodb.responses import DynamoHandler

from chalicelib import bootstrap
from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb.api_keys import DynamoApiKeys
from chalicelib.adapters.memory.all import run_inline
from infra.naming import bucket_name
from infra.tables import TABLES, create_table_arguments
from infra.template import template
from tests.kit.container import InlineLoop
from tests.kit.http import keys

STAGE, ACCOUNT, REGION = "dev", "123456789012", "us-east-1"  # moto's account


class RealAdapters(bootstrap.Container):
    """Every real adapter, on a worker loop where sleeps return at once."""

    offload: Any = staticmethod(run_inline)
    offload_sends: Any = staticmethod(run_inline)

    @cached_property
    def worker_loop(self) -> Any:
        return InlineLoop()


def _one_at_a_time(call: Callable[[DynamoHandler], Any]) -> Callable[[DynamoHandler], Any]:
    """Let requests wait for each other: moto copies all tables for a transaction, while threads of the stage write to them."""
    lock = RLock()

    def locked(handler: DynamoHandler) -> Any:
        with lock:
            return call(handler)

    return locked


@contextmanager
def stage_on_moto() -> Iterator[None]:
    """Create what the template of the stage names, and the keys of `TOKENS`."""
    with pytest.MonkeyPatch.context() as environment, mock_aws():
        for name, value in (("AWS_ACCESS_KEY_ID", "testing"), ("AWS_SECRET_ACCESS_KEY", "testing"), ("AWS_DEFAULT_REGION", REGION)):
            environment.setenv(name, value)
        for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            environment.delenv(name, raising=False)
        environment.setattr(DynamoHandler, "call_action", _one_at_a_time(DynamoHandler.call_action))
        aws.reset_clients()
        for table in TABLES:
            aws.client("dynamodb").create_table(**create_table_arguments(table, STAGE))
        aws.client("s3").create_bucket(Bucket=bucket_name(STAGE, ACCOUNT))
        for resource in template(STAGE)["Resources"].values():
            if resource["Type"] == "AWS::SQS::Queue":
                aws.client("sqs").create_queue(QueueName=resource["Properties"]["QueueName"])
        api_keys = DynamoApiKeys(STAGE)
        for key in keys(1):
            api_keys.put_key(key)
        try:
            yield
        finally:
            bootstrap.override(None)
            aws.reset_clients()
