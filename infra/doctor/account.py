"""Checks of the account, before anything is deployed."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from infra.chalice_config import ARCHITECTURE, FUNCTIONS, RESERVES
from infra.cloud import Cloud
from infra.concurrency import account_concurrency, concurrency_problem
from infra.doctor.finding import Finding, ok, problem, warning
from infra.layer import NEWER_PYTHON

RUNTIMES = range(10, 16)  # Python 3.x that Chalice can deploy
API_REQUESTS = ("apigateway", "L-8A5B8E43", "requests a second of API Gateway", 10_000)
CONNECTIONS = ("apigateway", "L-9ED1E49A", "new WebSockets a second", 500)


def credentials(cloud: Cloud) -> Iterator[Finding]:
    """All other checks need them."""
    identity = cloud.client("sts").get_caller_identity()
    yield ok("account", f"{identity['Account']}, as {identity['Arn'].rsplit(':', 1)[-1]}.")


def region(cloud: Cloud) -> Iterator[Finding]:
    """All other checks need one, too; that of `sts` may be none."""
    yield ok("region", f"{cloud.client('lambda').meta.region_name}.")


def concurrency(cloud: Cloud) -> Iterator[Finding]:
    limit = account_concurrency(cloud)
    narrow = concurrency_problem(cloud.stage, limit)
    if narrow:
        yield problem("concurrency", narrow)
    elif cloud.stage not in RESERVES and limit < sum(function.reserved or 0 for function in FUNCTIONS):
        yield warning(
            "concurrency", f"The account has {limit} concurrent executions: enough to try, not for load. Ask for more in Service Quotas."
        )
    else:
        yield ok("concurrency", f"The account has {limit} concurrent executions.")


def quotas(cloud: Cloud) -> Iterator[Finding]:
    """What the throttles of the stages count on."""
    client = cloud.client("service-quotas")
    for service, code, name, needed in (API_REQUESTS, CONNECTIONS):
        try:
            value = client.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"]
        except client.exceptions.NoSuchResourceException:
            yield warning("quotas", f"Service Quotas does not list the {name}; look in its console for API Gateway.")
            continue
        if value < needed:
            yield warning("quotas", f"The account has {value:.0f} {name}, not {needed}: lower the throttles in infra/chalice_config.py.")
        else:
            yield ok("quotas", f"{value:.0f} {name}.")


def interpreter(cloud: Cloud) -> Iterator[Finding]:
    """The runtime of the functions is the version that runs this."""
    minor = sys.version_info.minor
    version = f"3.{minor}"
    if minor not in RUNTIMES:
        yield problem(
            "python", f"Chalice cannot deploy Python {version}. Use 3.{RUNTIMES[2]} to 3.{RUNTIMES[-1]}: make PYTHON=python3.12 ..."
        )
    elif minor < 12 and ARCHITECTURE == "arm64" and cloud.stage != "local":
        yield problem("python", NEWER_PYTHON)
    else:
        yield ok("python", f"The functions run Python {version}, as this command does.")


CHECKS = (interpreter, concurrency, quotas)
