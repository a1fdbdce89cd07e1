"""The OpenAI credentials of a stage.

They are stored in Secrets Manager only: in no file, template or argument list.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

import typer
from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.adapters.aws.openai_credentials import MISSING_TTL_MS
from chalicelib.adapters.aws.sqs import message_group
from chalicelib.domain.queues.causes import MISSING_KEY, shard_of
from chalicelib.domain.queues.lanes import SCHEDULE, queue_name
from chalicelib.services.scheduling.visits import ShardMessage
from chalicelib.settings import Settings
from infra.chalice_config import SETTINGS
from infra.cloud import Cloud
from infra.naming import openai_secret_name
from infra.openai_address import check_address

WAKE_DELAY_SECONDS = MISSING_TTL_MS // 1000 + 1


def checked_openai_key(text: str) -> str:
    """The key without blanks and line ends around it.

    Raises BadParameter, which never quotes it, if there is none or no header could carry it.
    """
    key = text.strip()
    if not key:
        raise typer.BadParameter("No key given.")
    if not re.fullmatch(r"[!-~]+", key):
        raise typer.BadParameter("The OpenAI key has a character that a key cannot have, such as a blank or a letter with an accent.")
    return key


def put_openai_credentials(cloud: Cloud, credentials: dict[str, str]) -> bool:
    """Store `{"api_key", "base_url"?, "organization"?, "project"?}`.

    Returns whether they changed.

    Raises:
        AddressRefused: the address cannot be that of an API.
    """
    check_address(credentials.get("base_url"))
    client, name = cloud.client("secretsmanager"), openai_secret_name(cloud.stage)
    stored = _read(client, name)
    if stored is None:
        client.create_secret(Name=name, SecretString=json.dumps(credentials), Tags=[{"Key": "headrace", "Value": cloud.stage}])
    elif stored != credentials:
        client.put_secret_value(SecretId=name, SecretString=json.dumps(credentials))
    return stored != credentials


def wake_waiting_jobs(cloud: Cloud) -> bool:
    """Let the scheduler look at the jobs that wait for a key, as soon as no function remembers that there was none.

    Returns whether it was asked. If not, they start within a minute.
    """
    shards = Settings.from_env({"HEADRACE_STAGE": cloud.stage, **SETTINGS[cloud.stage]}).scheduler_shards
    number, at = shard_of(MISSING_KEY, shards), round(time.time() * 1000) + WAKE_DELAY_SECONDS * 1000
    message = ShardMessage(number, at=at)
    try:
        client = cloud.client("sqs")
        url = client.get_queue_url(QueueName=queue_name(cloud.stage, SCHEDULE))["QueueUrl"]
        group = message_group(f"shard-{number}")
        client.send_message(QueueUrl=url, MessageBody=message.to_json(), MessageGroupId=group, DelaySeconds=WAKE_DELAY_SECONDS)
    except (BotoCoreError, ClientError):
        return False
    return True


def ensure_openai_secret(cloud: Cloud) -> bool:
    """Create an empty secret if there is none, so that functions report "not configured".

    Returns whether a key is set.

    Raises:
        AddressRefused: the stored address cannot be that of an API, so no job could run.
    """
    stored = _read(cloud.client("secretsmanager"), openai_secret_name(cloud.stage))
    if stored is None:
        put_openai_credentials(cloud, {"api_key": ""})
    check_address(stored.get("base_url") if stored else None)
    return bool(stored and stored.get("api_key"))


def _read(client: Any, name: str) -> dict[str, str] | None:
    try:
        value: dict[str, str] = json.loads(client.get_secret_value(SecretId=name)["SecretString"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        return None
    return value
