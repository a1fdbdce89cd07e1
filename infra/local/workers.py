"""Adapt the workers to a laptop: limit their concurrency and restart them for a new OpenAI key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import typer

from chalicelib.domain.queues import lanes
from infra.cloud import Cloud

# Concurrent environments of each queue of jobs. Each is a process of about 80 MB with up to ten
# streams; the limits in `lanes` are for AWS.
DEFAULT_CONCURRENCY = max(2, 2 * (os.cpu_count() or 1))


def max_concurrency(environment: Mapping[str, str]) -> int:
    """The environments of each queue: HEADRACE_LOCAL_WORKERS, at least two, which is the least that AWS allows.

    Raises BadParameter if the variable is no number.
    """
    text = environment.get("HEADRACE_LOCAL_WORKERS", "").strip()
    if text and not (text.isascii() and text.isdigit() and len(text) < 4):
        raise typer.BadParameter("must be a whole number below 1000", param_hint="HEADRACE_LOCAL_WORKERS")
    return max(2, int(text)) if text else DEFAULT_CONCURRENCY


def limit_workers(cloud: Cloud) -> None:
    """Lower the concurrency of the event sources, which Chalice sets to the limits in `lanes`."""
    client, concurrency = cloud.client("lambda"), max_concurrency(os.environ)
    for worker in _workers(cloud, lanes.JOB_QUEUES):
        for source in client.list_event_source_mappings(FunctionName=worker)["EventSourceMappings"]:
            client.update_event_source_mapping(UUID=source["UUID"], ScalingConfig={"MaximumConcurrency": concurrency})


def restart_workers(cloud: Cloud) -> None:
    """Replace the worker environments, because they cache the OpenAI key for minutes.

    Their jobs are recovered. The worker of tasks has no key.
    """
    client = cloud.client("lambda")
    for worker in _workers(cloud, lanes.LANES):
        client.update_function_configuration(FunctionName=worker, Timeout=lanes.WORKER_TIMEOUT)


def api_log(cloud: Cloud, lines: int) -> list[str]:
    """The last log lines of the API function, without those that Lambda adds."""
    found: list[str] = []
    client, group = cloud.client("logs"), f"/aws/lambda/headrace-{cloud.stage}"
    for page in client.get_paginator("filter_log_events").paginate(logGroupName=group):
        found += [event["message"].rstrip() for event in page["events"]]
    return [line for line in found if not line.startswith(("START ", "END ", "REPORT "))][-lines:]


def _workers(cloud: Cloud, queues: Iterable[str]) -> list[str]:
    return [f"headrace-{cloud.stage}-{lanes.JOB_QUEUES[queue].function}" for queue in queues]
