"""The OpenAI credentials of a stage, kept in Secrets Manager and nowhere else: no file, no template, no argument list."""

from __future__ import annotations

import json

from botocore.exceptions import ClientError

from infra.cloud import Cloud
from infra.naming import openai_secret_name


def put_openai_credentials(cloud: Cloud, credentials: dict[str, str]) -> None:
    """Create the secret or give it a new value: `{"api_key", "base_url"?, "organization"?, "project"?}`."""
    client = cloud.client("secretsmanager")
    name, value = openai_secret_name(cloud.stage), json.dumps(credentials)
    try:
        client.put_secret_value(SecretId=name, SecretString=value)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        client.create_secret(Name=name, SecretString=value, Tags=[{"Key": "headrace", "Value": cloud.stage}])


def ensure_openai_secret(cloud: Cloud) -> bool:
    """Make an empty secret if there is none, so that the functions find one and say "not configured". True if a key is set."""
    client = cloud.client("secretsmanager")
    try:
        value = client.get_secret_value(SecretId=openai_secret_name(cloud.stage))["SecretString"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        put_openai_credentials(cloud, {"api_key": ""})
        return False
    return bool(json.loads(value).get("api_key"))
