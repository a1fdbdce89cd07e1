"""Checks of the services that a stage uses beside its own functions: OpenAI's key, mail, alarms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from infra.alarms import alarms, topic_name
from infra.chalice_config import SETTINGS
from infra.cloud import Cloud
from infra.doctor.finding import Finding, ok, problem, warning
from infra.naming import openai_secret_name
from infra.openai_address import AddressRefused, check_api

FIELDS = {"api_key", "base_url", "organization", "project"}


def openai_key(cloud: Cloud) -> Iterator[Finding]:
    """The secret is never printed, nor a part of it."""
    client, store = cloud.client("secretsmanager"), f"Store the key: make openai-key STAGE={cloud.stage}."
    try:
        text = client.get_secret_value(SecretId=openai_secret_name(cloud.stage))["SecretString"]
    except client.exceptions.ResourceNotFoundException:
        yield problem("openai key", f"There is no secret. Deploy the stage, then store the key: make openai-key STAGE={cloud.stage}.")
        return
    credentials = _object(text)
    if credentials is None or set(credentials) - FIELDS or not all(isinstance(value, str) for value in credentials.values()):
        yield problem("openai key", f"The secret is not the JSON that workers read. {store}")
    elif not credentials.get("api_key"):
        yield problem("openai key", f"No key is stored, so jobs wait. {store}")
    elif credentials["api_key"].strip() != credentials["api_key"] or not credentials["api_key"].isascii():
        yield problem("openai key", f"The stored key has blanks or other characters that no key has. {store}")
    elif wrong := _address_problem(credentials):
        yield problem(
            "openai key", f"{wrong} Jobs wait. Store the address with the key: OPENAI_BASE_URL=... make openai-key STAGE={cloud.stage}."
        )
    else:
        yield ok("openai key", "A key is stored.")


def _address_problem(credentials: dict[str, str]) -> str | None:
    """Return why the stored address cannot be used; None: it can, or could not be asked from here."""
    try:
        check_api(credentials.get("base_url"), credentials["api_key"])
    except AddressRefused as refused:
        return str(refused)
    return None


def mail(cloud: Cloud) -> Iterator[Finding]:
    sender = SETTINGS[cloud.stage].get("HEADRACE_MAIL_FROM", "")
    if not sender:
        yield ok("mail", "The stage sends no e-mail: HEADRACE_MAIL_FROM is not set.")
        return
    client = cloud.client("sesv2")
    identities = [identity for identity in (sender, sender.rpartition("@")[2]) if _is_verified(client, identity)]
    if not identities:
        yield problem("mail", f"SES has not verified {sender}, nor its domain, in this region: verify one of them in SES.")
    elif not client.get_account().get("ProductionAccessEnabled"):
        yield warning("mail", "SES is in its sandbox and sends to verified addresses only: request production access in SES.")
    else:
        yield ok("mail", f"SES may send as {sender}.")


def alarm_topic(cloud: Cloud) -> Iterator[Finding]:
    topics = [topic["TopicArn"] for page in cloud.client("sns").get_paginator("list_topics").paginate() for topic in page["Topics"]]
    arn = next((arn for arn in topics if arn.rsplit(":", 1)[-1] == topic_name(cloud.stage)), None)
    if arn is None:
        yield problem("alarm topic", f"There is none. Deploy the stage: make deploy STAGE={cloud.stage}.")
        return
    subscriptions = cloud.client("sns").list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"]
    confirmed = [each for each in subscriptions if each["SubscriptionArn"].startswith("arn:")]
    if not confirmed:
        waits = (
            "the address has not given its consent; it has a mail of SNS" if subscriptions else "set ALARM_EMAIL in infra/chalice_config.py"
        )
        yield warning("alarm topic", f"Nobody hears the alarms: {waits}.")
    else:
        yield ok("alarm topic", f"{len(confirmed)} subscriptions.")


def alarm_list(cloud: Cloud) -> Iterator[Finding]:
    prefix = f"headrace-{cloud.stage}-"
    pages = cloud.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=prefix)
    found = {alarm["AlarmName"]: alarm for page in pages for alarm in page["MetricAlarms"]}
    missing = [alarm.name for alarm in alarms(cloud.stage) if prefix + alarm.name not in found]
    if missing:
        yield problem("alarms", f"Missing: {', '.join(missing)}. Deploy the stage: make deploy STAGE={cloud.stage}.")
    ringing = [alarm for alarm in alarms(cloud.stage) if found.get(prefix + alarm.name, {}).get("StateValue") == "ALARM"]
    for alarm in ringing:
        yield problem("alarms", f"{alarm.name}: {alarm.meaning} See docs/operations.md.")
    if not missing and not ringing:
        yield ok("alarms", f"{len(found)} alarms, none in ALARM.")


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _is_verified(client: Any, identity: str) -> bool:
    try:
        return bool(client.get_email_identity(EmailIdentity=identity).get("VerifiedForSendingStatus"))
    except client.exceptions.NotFoundException:
        return False


CHECKS = (openai_key, mail, alarm_topic, alarm_list)
