"""The cloud of a command: AWS with the credentials of the user, or the emulator without any.

The `local` stage never reaches AWS: its endpoint and dummy credentials are explicit, and AWS
configuration files are ignored.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

LOCAL_REGION = "us-east-1"
_DUMMY = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@dataclass(frozen=True)
class Cloud:
    """A stage and its endpoint. Without an endpoint it is on AWS."""

    stage: str
    endpoint: str | None = None

    def __post_init__(self) -> None:
        if (self.stage == "local") != (self.endpoint is not None):
            raise ValueError("The stage `local`, and no other, has an endpoint.")

    def client(self, service: str) -> Any:
        """A boto3 client of this cloud."""
        if self.endpoint is None:
            return boto3.client(service)
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=LOCAL_REGION,
            aws_access_key_id=_DUMMY["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_DUMMY["AWS_SECRET_ACCESS_KEY"],
            verify=False,
            config=Config(proxies={}),  # those of the environment cannot reach this machine
        )

    def environment(self) -> dict[str, str]:
        """The environment for a process that may talk to this cloud only."""
        if self.endpoint is None:
            return dict(os.environ)
        return without_aws(dict(os.environ)) | local_environment(self.endpoint)

    def bind_this_process(self) -> None:
        """Point this process, and the adapters of the product in it, to this cloud only."""
        environment = self.environment() | {"HEADRACE_STAGE": self.stage}
        os.environ.clear()
        os.environ.update(environment)


def local_environment(endpoint: str) -> dict[str, str]:
    """Variables that point every AWS SDK to the emulator."""
    return _DUMMY | {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": LOCAL_REGION,
        "AWS_REGION": LOCAL_REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def without_aws(environment: dict[str, str]) -> dict[str, str]:
    """The environment without variables that could lead to a real AWS account."""
    return {name: value for name, value in environment.items() if not name.startswith("AWS_")}
