"""Each function does with its own role all that it may have to do, and no role has a right that none of this needs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pytest
import requests

from chalicelib import bootstrap
from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.memory.notifications import MemoryWebhookClient
from chalicelib.settings import Settings
from infra.openai_key import *
from infra.policies import KINDS, policy
from tests.kit.iam import Roles
from tests.kit.lambdas import Lambdas
from tests.kit.moto_stage import STAGE, RealAdapters, stage_on_moto
from tests.kit.provider import Script, ScriptedProvider

LARGE = random.Random(1).randbytes(30_000).hex()  # more than `INLINE_BYTES` when compressed, so it is an object


class OneContainer(RealAdapters):
    @cached_property
    def provider(self) -> Any:
        return ScriptedProvider(Script(deltas=[LARGE], every=0.01, first=0.01))

    @cached_property
    def webhook_client(self) -> Any:
        return MemoryWebhookClient()


def main() -> None:
    with stage_on_moto():
        aws.client("ses").verify_email_identity(EmailAddress="headrace@example.com")
        roles = Roles({kind: policy(kind, STAGE) for kind in KINDS})
        cloud = Lambdas(roles, lambda: OneContainer(Settings(stage=STAGE, mail_from="headrace@example.com")))
        print(cloud.call("PUT", "/webhooks/addresses", {"emails": ["ada@example.com"]}, "admin").text)
        job = cloud.call("POST", "/jobs", {"prompt": LARGE, "webhook_url": "https://hooks.example.com/x", "notify": ["email:ada@example.com"]}).json["job_id"]
        cloud.settle()
        print(cloud.call("GET", f"/jobs/{job}").text)
        r=cloud.call("GET", f"/jobs/{job}/result"); print(r.status, r.headers, r.text[:100])
        print(cloud.call("GET", f"/jobs/{job}/deliveries").text)
        print(cloud.call("GET", f"/failed-jobs", token="operator").text)
        cloud.tick()
        print(roles.refused)


main()
