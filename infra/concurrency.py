"""Whether an account is wide enough for what a stage reserves in it, asked before anything is deployed.

AWS refuses a reservation that leaves less than a hundred to everything else, in the middle of a deployment.
"""

from __future__ import annotations

from infra.chalice_config import FUNCTIONS, RESERVES
from infra.cloud import Cloud

LEFT_TO_OTHERS = 100  # AWS's own rule


def too_narrow(stage: str, account: int) -> str | None:
    """What is wrong with an account of so many executions at once; None if nothing is."""
    needed = sum(function.reserved or 0 for function in FUNCTIONS) + LEFT_TO_OTHERS
    if stage not in RESERVES or account >= needed:
        return None
    return (
        f"{stage} reserves {needed - LEFT_TO_OTHERS} concurrent executions of Lambda for the API, the change stream and the sweep, and AWS "
        f"wants {LEFT_TO_OTHERS} left for the rest. This account has {account}. Ask for more in Service Quotas."
    )


def account_concurrency(cloud: Cloud) -> int:
    """How many functions the account may run at once, in the region of the deployment."""
    limit: int = cloud.client("lambda").get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
    return limit
