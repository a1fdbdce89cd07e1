"""Let the functions whose messages come back to them run on.

Lambda follows a message through queues and functions, and drops the seventeenth of a chain. A job
that is held for an hour, or a batch of many steps, is such a chain and no endless loop: every
message is bounded by its job's or batch's expiry.
"""

from __future__ import annotations

from collections.abc import Iterator

from infra.chalice_config import FUNCTIONS, Function
from infra.cloud import Cloud


def allow_loops(cloud: Cloud) -> list[str]:
    """Turn the detection of recursive loops off where it is on. Returns the changed functions."""
    client, changed = cloud.client("lambda"), []
    for function in stopped_loops(cloud):
        client.put_function_recursion_config(FunctionName=function.aws_name(cloud.stage), RecursiveLoop="Allow")
        changed.append(function.name)
    return changed


def stopped_loops(cloud: Cloud) -> Iterator[Function]:
    """The functions with such chains whose messages Lambda would drop: one call each."""
    client = cloud.client("lambda")
    for function in FUNCTIONS:
        if function.loops and client.get_function_recursion_config(FunctionName=function.aws_name(cloud.stage))["RecursiveLoop"] != "Allow":
            yield function
