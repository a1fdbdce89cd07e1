"""What a laptop does differently with its workers: fewer at once, and none with an old key."""

from __future__ import annotations

import os

from chalicelib.domain.queues import lanes
from infra.cloud import Cloud

# Environments of a lane at once. Each is a process of some 80 MB with up to ten streams; the lanes' own widths are for a region.
AT_ONCE = max(2, int(os.environ.get("HEADRACE_LOCAL_WORKERS") or 2 * (os.cpu_count() or 1)))


def limit_workers(cloud: Cloud) -> None:
    """Narrow the event sources that Chalice has made as wide as the lanes."""
    client = cloud.client("lambda")
    for worker in _workers(cloud):
        for source in client.list_event_source_mappings(FunctionName=worker)["EventSourceMappings"]:
            client.update_event_source_mapping(UUID=source["UUID"], ScalingConfig={"MaximumConcurrency": AT_ONCE})


def restart_workers(cloud: Cloud) -> None:
    """New environments for the workers, since those that run keep the OpenAI key for minutes. Their jobs are taken up again."""
    client = cloud.client("lambda")
    for worker in _workers(cloud):
        client.update_function_configuration(FunctionName=worker, Timeout=lanes.WORKER_TIMEOUT)


def api_log(cloud: Cloud, lines: int) -> list[str]:
    """The last lines that the API's function wrote, without those that Lambda adds."""
    found: list[str] = []
    client, group = cloud.client("logs"), f"/aws/lambda/headrace-{cloud.stage}"
    for page in client.get_paginator("filter_log_events").paginate(logGroupName=group):
        found += [event["message"].rstrip() for event in page["events"]]
    return [line for line in found if not line.startswith(("START ", "END ", "REPORT "))][-lines:]


def _workers(cloud: Cloud) -> list[str]:
    return [f"headrace-{cloud.stage}-worker_{lane}" for lane in lanes.LANES]
