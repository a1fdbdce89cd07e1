"""Check before a deployment that the account has enough concurrency for a stage.

AWS rejects a reservation that leaves less than 100 unreserved executions, which would abort the
deployment half-way.
"""

from __future__ import annotations

from infra.chalice_config import FUNCTIONS, RESERVES
from infra.cloud import Cloud

MIN_UNRESERVED = 100  # a rule of AWS


def concurrency_problem(stage: str, account: int) -> str | None:
    """The problem of an account with this concurrency limit, as a message; None if it suffices."""
    needed = sum(function.reserved or 0 for function in FUNCTIONS) + MIN_UNRESERVED
    if stage not in RESERVES or account >= needed:
        return None
    return (
        f"{stage} reserves {needed - MIN_UNRESERVED} executions of Lambda for the API, new sockets, the change stream and the sweep, "
        f"and AWS wants {MIN_UNRESERVED} left for the rest. This account has {account}. Ask for more in Service Quotas."
    )


def account_concurrency(cloud: Cloud) -> int:
    """The concurrency limit of the account in the region of the deployment."""
    limit: int = cloud.client("lambda").get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
    return limit
