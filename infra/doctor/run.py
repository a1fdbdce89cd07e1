"""Run all checks of a stage and print what they find."""

from __future__ import annotations

from collections.abc import Iterator

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
)
from rich.console import Console
from rich.text import Text

from infra.cloud import Cloud
from infra.doctor import account, services, stage
from infra.doctor.finding import Check, Finding, Level, problem, warning

COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}
NOT_ALLOWED = ("AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation")
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch")


def run(cloud: Cloud, console: Console | None = None) -> bool:
    """Print one line per finding. Returns whether there is no problem."""
    console, levels = console or Console(), []
    for finding in examine(cloud):
        levels.append(finding.level)
        console.print(Text(f"{finding.level:8}", COLOURS[finding.level]) + Text(f" {finding.subject}: {finding.text}"), soft_wrap=True)
    return Level.PROBLEM not in levels


def examine(cloud: Cloud) -> Iterator[Finding]:
    """Everything that can be found. Without credentials it is one finding."""
    try:
        found = [*account.region(cloud), *account.credentials(cloud)]
    except (BotoCoreError, ClientError) as error:
        yield _no_access(error)
        return
    yield from found
    for check in (*account.CHECKS, *services.CHECKS[:2]):
        yield from _guarded(check, cloud)
    try:
        deployed = stage.is_deployed(cloud)
    except (BotoCoreError, ClientError) as error:
        yield warning("stage", _not_checked(error))
        return
    if not deployed:
        yield stage.not_deployed(cloud)
        return
    for check in (*stage.CHECKS, *services.CHECKS[2:]):
        yield from _guarded(check, cloud)


def _guarded(check: Check, cloud: Cloud) -> Iterator[Finding]:
    """A check that is not permitted, or that this cloud does not have, does not stop the others."""
    subject = check.__name__.replace("_", " ")
    try:
        yield from check(cloud)
    except (BotoCoreError, ClientError, KeyError) as error:
        yield warning(subject, _not_checked(error))


def _not_checked(error: Exception) -> str:
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        if code in NOT_ALLOWED:
            return f"Not checked, because you may not call {error.operation_name}: ask for that permission, or somebody who has it."
        return f"Not checked, because {error.operation_name} answered {code}: look there yourself."
    return f"Not checked ({type(error).__name__}): look there yourself."


def _no_access(error: Exception) -> Finding:
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return problem("account", "There are no AWS credentials in the environment: set AWS_PROFILE, or log in with `aws sso login`.")
    if isinstance(error, ProfileNotFound):
        return problem("account", f"{error}: name one of your profiles in AWS_PROFILE.")
    if isinstance(error, NoRegionError):
        return problem("region", "No region is set: set AWS_DEFAULT_REGION.")
    if isinstance(error, ProxyConnectionError):
        return problem("account", "The proxy does not answer, or is not of a kind that AWS's library speaks: check HTTPS_PROXY.")
    if isinstance(error, HTTPClientError | EndpointConnectionError):
        return problem("account", "AWS does not answer: check the network, and the region in AWS_DEFAULT_REGION.")
    if isinstance(error, ClientError) and error.response["Error"]["Code"] in EXPIRED:
        return problem("account", "AWS refuses the credentials: they have expired or are wrong; log in again.")
    return problem("account", f"AWS cannot be asked ({type(error).__name__}): check the credentials in the environment.")
