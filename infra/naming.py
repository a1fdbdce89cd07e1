"""The names of all resources of a stage, derived from the stage without a lookup."""

from __future__ import annotations

from chalicelib.adapters.aws.names import bucket_name, openai_secret_name, table_name, tenant_secret_prefix

__all__ = [
    "API_STAGE",
    "STAGES",
    "bucket_name",
    "openai_secret_name",
    "resource_id",
    "stack_name",
    "table_name",
    "tenant_secret_prefix",
]

STAGES = ("local", "dev", "prod")
API_STAGE = "api"  # the first path segment of both APIs


def alarm_stack_name(stage: str) -> str:
    """The CloudFormation stack of the alarms."""
    return f"headrace-{stage}-alarms"


def stack_name(stage: str) -> str:
    """The CloudFormation stack of the resources that Chalice does not create."""
    return f"headrace-{stage}"


def resource_id(name: str) -> str:
    """`job_data` -> `JobData`: CloudFormation logical ids and IAM statement ids take only letters and digits."""
    return "".join(part[0].upper() + part[1:] for part in name.split("_"))
