"""Requests made from the OpenAPI document over HTTP, with a key of each role of a tenant of its own.

tests/entrypoints/test_generated_requests.py sends more of them, in one process. Here they meet the
gateway and the real stores.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from schemathesis import Case

from tests.e2e.stack import Api, Stack, make_key
from tests.kit.generated_requests import Sender, send_generated

FUNCTION = "headrace-local"  # the API's
LIMIT = "HEADRACE_REQUESTS_PER_MINUTE"
ROLES = ("viewer", "user", "operator", "admin")
TENANT = "generated"
VALID, INVALID = 3, 2  # requests of each operation
LEFT_OUT = (
    "GET /jobs/{job_id}/stream",  # holds a request for twenty seconds where there is nothing to say
    "POST /webhooks/test",  # calls the addresses that were made up
)
SENDS_MESSAGES = ("webhook_url", "notify")


@contextmanager
def lifted_limit(stack: Stack) -> Iterator[None]:
    """Let a key send as many requests as it likes."""
    functions = stack.aws("lambda")
    before: dict[str, str] = functions.get_function_configuration(FunctionName=FUNCTION)["Environment"]["Variables"]
    functions.update_function_configuration(FunctionName=FUNCTION, Environment={"Variables": {**before, LIMIT: "1000000"}})
    try:
        yield
    finally:
        functions.update_function_configuration(FunctionName=FUNCTION, Environment={"Variables": before})


def prepare(case: Case) -> None:
    """Take out what waits, and what would call made-up addresses."""
    case.query.pop("wait", None)
    for name in SENDS_MESSAGES:
        case.query.pop(name, None)
    if isinstance(case.body, dict):
        case.body = {name: value for name, value in case.body.items() if name not in (*SENDS_MESSAGES, "async")}
        if case.body.get("job_type", case.body.get("type")) == "notification":
            case.body["delay"] = 2_592_000


def ids(user: Api) -> dict[str, list[str]]:
    """Ids of a job and a batch of each kind."""
    ended, running = user.submit(), user.submit(delay=3_000)
    batch = user.call("POST", "/batches", ["a", "b"]).json()["batch_id"]
    user.wait_for_end(ended)
    return {"job_id": [ended, running], "batch_id": [batch], "name": ["general", "export"], "model": ["gpt-4o-mini"]}


def test_no_answer_of_the_running_stage_differs_from_the_document(stack: Stack) -> None:
    keys = {role: make_key(TENANT, role, role) for role in ROLES}
    apis = {role: Api(stack.http, stack.api_url, key) for role, key in keys.items()}
    known = ids(apis["user"])
    document: dict[str, Any] = apis["user"].get("/openapi.json")
    senders = [Sender(role, f"Bearer {key}", known) for role, key in keys.items()]

    with lifted_limit(stack), requests.Session() as session:
        session.trust_env = False
        answers = send_generated(
            document, stack.api_url, session, senders, VALID, INVALID, left_out=LEFT_OUT, prepare=prepare, at_once=True
        )
    cancelled = apis["operator"].call("POST", "/bulk", {"action": "cancel", "all": True})

    assert cancelled.is_success, cancelled.text
    assert answers.total > 800
    if answers.problems:
        pytest.fail(str(answers), pytrace=False)
