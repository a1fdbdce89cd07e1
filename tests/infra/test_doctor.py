"""`make doctor`: one line per check, with what to do, and no traceback whatever happens."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, NoRegionError
from moto import mock_aws
from rich.console import Console
from typer.testing import CliRunner

from infra.chalice_config import SETTINGS
from infra.cloud import Cloud
from infra.commands import app
from infra.doctor import account, run, services, stage
from infra.doctor.finding import Finding, Level, ok, problem, warning
from infra.naming import openai_secret_name
from tests.infra.test_event_sources import FakeLambda, cloud_with, deployed_by_chalice


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield Cloud("dev")


def only(findings: Iterator[Finding]) -> Finding:
    [found] = findings
    return found


@pytest.mark.parametrize(
    ("secret", "level", "says"),
    [
        (None, Level.PROBLEM, "There is no secret"),
        ({"api_key": ""}, Level.PROBLEM, "No key is stored"),
        ("sk-secret", Level.PROBLEM, "not the JSON"),
        (["sk-secret"], Level.PROBLEM, "not the JSON"),
        ({"api_key": "sk-secret", "key": "x"}, Level.PROBLEM, "not the JSON"),
        ({"api_key": "sk-secret\n"}, Level.PROBLEM, "blanks"),
        ({"api_key": "sk-secret", "base_url": "http://127.0.0.1:9/v1"}, Level.OK, "A key is stored"),  # not to be asked from here
        ({"api_key": "sk-secret", "base_url": "proxy.example/v1"}, Level.PROBLEM, "proxy.example/v1 does not begin with https://"),
        ({"api_key": "sk-secret", "base_url": "https://h/v1?key=sk-1"}, Level.PROBLEM, "https://h/v1 has a query"),
    ],
)
def test_the_openai_key_is_checked_and_never_printed(aws: Cloud, secret: Any, level: Level, says: str) -> None:
    if secret is not None:
        text = secret if isinstance(secret, str) else json.dumps(secret)
        boto3.client("secretsmanager").create_secret(Name=openai_secret_name("dev"), SecretString=text)

    found = only(services.openai_key(aws))

    assert (found.level, says in found.text) == (level, True)
    assert "sk-" not in found.text


def test_a_stage_without_a_sender_needs_no_mail(aws: Cloud) -> None:
    assert only(services.mail(aws)).level is Level.OK


class FakeSes:
    class exceptions:  # noqa: N801 - as botocore calls it
        class NotFoundException(Exception):
            pass

    def __init__(self, verified: tuple[str, ...], production: bool) -> None:
        self.verified, self.production = verified, production

    def get_email_identity(self, EmailIdentity: str) -> dict[str, Any]:  # noqa: N803
        if EmailIdentity not in self.verified:
            raise self.exceptions.NotFoundException
        return {"VerifiedForSendingStatus": True}

    def get_account(self) -> dict[str, Any]:
        return {"ProductionAccessEnabled": self.production}


@pytest.mark.parametrize(
    ("verified", "production", "level", "says"),
    [
        ((), True, Level.PROBLEM, "has not verified"),
        (("jobs@example.org",), False, Level.WARNING, "sandbox"),
        (("example.org",), True, Level.OK, "may send"),
    ],
)
def test_the_sender_of_mail_is_verified_and_out_of_the_sandbox(
    monkeypatch: pytest.MonkeyPatch, verified: tuple[str, ...], production: bool, level: Level, says: str
) -> None:
    monkeypatch.setitem(SETTINGS["dev"], "HEADRACE_MAIL_FROM", "jobs@example.org")

    class FakeCloud(Cloud):
        def client(self, service: str) -> Any:
            return FakeSes(verified, production)

    found = only(services.mail(FakeCloud("dev")))

    assert (found.level, says in found.text) == (level, True)


def test_alarms_that_nobody_hears_are_a_warning(aws: Cloud) -> None:
    missing = only(services.alarm_topic(aws))
    sns = boto3.client("sns")
    topic = sns.create_topic(Name="headrace-dev-alarms")["TopicArn"]
    silent = only(services.alarm_topic(aws))
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:123456789012:queue")
    heard = only(services.alarm_topic(aws))

    assert [missing.level, silent.level, heard.level] == [Level.PROBLEM, Level.WARNING, Level.OK]


def test_missing_and_ringing_alarms_are_problems(aws: Cloud) -> None:
    cloudwatch = boto3.client("cloudwatch")
    cloudwatch.put_metric_alarm(AlarmName="headrace-dev-sweep-errors", ComparisonOperator="GreaterThanThreshold", EvaluationPeriods=1)
    cloudwatch.set_alarm_state(AlarmName="headrace-dev-sweep-errors", StateValue="ALARM", StateReason="")

    missing, ringing = services.alarm_list(aws)

    assert (missing.level, ringing.level) == (Level.PROBLEM, Level.PROBLEM)
    assert "sweep-absent" in missing.text
    assert "sweep-errors" not in missing.text
    assert ringing.text.startswith("sweep-errors: sweep fails")


def test_event_sources_are_compared_with_what_the_code_expects() -> None:
    client = FakeLambda(deployed_by_chalice())
    client.mappings["headrace-dev-worker_low"] |= {"FunctionResponseTypes": ["ReportBatchItemFailures"]}
    client.mappings["headrace-dev-deliver"] |= {"State": "Disabled"}
    del client.mappings["headrace-dev-run_tasks"]

    found = list(stage.sources(cloud_with(client)))

    texts = [each.text for each in found if each.level is Level.PROBLEM]
    assert any("run_tasks has none" in text for text in texts)
    assert any("That of deliver is disabled" in text for text in texts)
    assert any("That of worker_high differs in FunctionResponseTypes" in text for text in texts)
    assert not any("worker_low" in text for text in texts)
    assert found[-1] == ok("event sources", "1 are as the code expects.")


def test_functions_whose_chains_lambda_would_cut_are_a_problem() -> None:
    client = FakeLambda(deployed_by_chalice())

    assert only(stage.recursion(cloud_with(client))).level is Level.PROBLEM

    client.loops = dict.fromkeys(client.mappings, "Allow")
    assert only(stage.recursion(cloud_with(client))).level is Level.OK


def test_a_small_account_is_a_warning_for_dev_and_a_problem_for_prod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "account_concurrency", lambda _: 10)

    assert only(account.concurrency(Cloud("dev"))).level is Level.WARNING
    assert only(account.concurrency(Cloud("prod"))).level is Level.PROBLEM


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (NoCredentialsError(), "no AWS credentials"),
        (NoRegionError(), "AWS_DEFAULT_REGION"),
        (EndpointConnectionError(endpoint_url="https://sts"), "does not answer"),
        (ClientError({"Error": {"Code": "ExpiredToken"}}, "GetCallerIdentity"), "log in again"),
    ],
)
def test_without_access_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, error: Exception, says: str) -> None:
    def refuse(_: Cloud) -> Iterator[Finding]:
        raise error

    monkeypatch.setattr(account, "region", refuse)

    found = only(run.examine(Cloud("dev")))

    assert found.level is Level.PROBLEM
    assert says in found.text


@pytest.mark.parametrize(
    ("code", "says"),
    [("AccessDeniedException", "you may not call GetServiceQuota"), ("UnknownOperationException", "answered UnknownOperationException")],
)
def test_a_check_that_fails_does_not_stop_the_others(code: str, says: str) -> None:
    def refused(_: Cloud) -> Iterator[Finding]:
        yield ok("quotas", "The first.")
        raise ClientError({"Error": {"Code": code}}, "GetServiceQuota")

    found = list(run._guarded(refused, Cloud("dev")))

    assert [each.level for each in found] == [Level.OK, Level.WARNING]
    assert says in found[1].text


def test_report_has_one_line_per_finding_and_fails_on_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [ok("region", "eu-west-1."), warning("quotas", "Not checked."), problem("openai key", "No key is stored.")]
    printed = io.StringIO()

    def report(of: list[Finding]) -> bool:
        monkeypatch.setattr(run, "examine", lambda _: iter(of))
        return run.run(Cloud("dev"), Console(file=printed, width=20))

    assert (report(findings), report(findings[:2])) == (False, True)
    assert printed.getvalue().splitlines()[:3] == [
        "ok       region: eu-west-1.",
        "warning  quotas: Not checked.",
        "problem  openai key: No key is stored.",
    ]


def test_command_exits_with_1_on_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "examine", lambda _: iter([problem("stage", "dev is not deployed.")]))

    assert CliRunner().invoke(app, ["doctor", "--stage", "dev"]).exit_code == 1
    assert CliRunner().invoke(app, ["doctor", "--stage", "prodd"]).exit_code == 2


def test_a_stage_that_is_not_deployed_is_one_problem(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "CHECKS", ())
    monkeypatch.setattr(stage, "is_deployed", lambda _: False)

    found = list(run.examine(aws))

    assert found[-1] == problem("stage", "dev is not deployed: deploy it, make deploy STAGE=dev.")
