"""How everything that a stage owns is called. Code and commands derive names from the stage and look nothing up."""

from __future__ import annotations

STAGES = ("local", "dev", "prod")
API_STAGE = "api"  # the first part of the path of both APIs


def stack_name(stage: str) -> str:
    """The CloudFormation stack that holds what Chalice does not make."""
    return f"headrace-{stage}"


def table_name(stage: str, table: str) -> str:
    return f"headrace-{stage}-{table}"


def bucket_name(stage: str, account: str) -> str:
    """Bucket names are global, hence the account in it."""
    return f"headrace-{stage}-content-{account}"


def openai_secret_name(stage: str) -> str:
    return f"headrace/{stage}/openai"


def tenant_secrets(stage: str) -> str:
    """How the names of all secrets of tenants begin."""
    return f"headrace/{stage}/tenants/"
