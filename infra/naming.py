"""The names of all resources of a stage, derived from the stage without a lookup."""

from __future__ import annotations

STAGES = ("local", "dev", "prod")
API_STAGE = "api"  # the first path segment of both APIs


def stack_name(stage: str) -> str:
    """The CloudFormation stack of the resources that Chalice does not create."""
    return f"headrace-{stage}"


def table_name(stage: str, table: str) -> str:
    return f"headrace-{stage}-{table}"


def bucket_name(stage: str, account: str) -> str:
    """The content bucket. Bucket names are global, so it includes the account."""
    return f"headrace-{stage}-content-{account}"


def openai_secret_name(stage: str) -> str:
    return f"headrace/{stage}/openai"


def tenant_secret_prefix(stage: str) -> str:
    """The common prefix of the names of all tenant secrets."""
    return f"headrace/{stage}/tenants/"


def resource_id(name: str) -> str:
    """`job_data` -> `JobData`: CloudFormation logical ids and IAM statement ids take only letters and digits."""
    return "".join(part[0].upper() + part[1:] for part in name.split("_"))
