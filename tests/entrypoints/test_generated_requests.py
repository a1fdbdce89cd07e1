"""Thousands of requests made from the OpenAPI document, with a key of each role.

`HEADRACE_GENERATED=500` makes so many of each operation instead of twenty.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from chalicelib import bootstrap
from chalicelib.entrypoints.http.openapi.document import document
from tests.kit.app_adapter import BASE_URL, session
from tests.kit.generated_requests import Answers, Sender, send_generated
from tests.kit.http import Api
from tests.kit.work import work

ROLES = ("viewer", "user", "operator", "admin", "stage_admin")
EACH = int(os.environ.get("HEADRACE_GENERATED", "20"))
# So many of a hundred valid requests have to be accepted; the rest name what does not exist or may not be.
ACCEPTED = {
    "POST /jobs": 0.5,
    "POST /jobs/estimate": 0.5,
    "POST /batches": 0.5,
    "POST /bulk": 0.5,
    "POST /failed-jobs/retry": 0.5,
    "GET /jobs": 0.5,
}


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    """What is answered to all requests."""
    api = Api()
    api.container.settings = replace(api.container.settings, requests_per_minute=10**9)
    logging.disable(logging.INFO)
    senders = [Sender(role, f"Bearer hr_{role}", _ids(api, "stage_admin" if role == "stage_admin" else "user")) for role in ROLES]
    yield send_generated(document(), BASE_URL, session(api), senders, EACH * 3 // 5, EACH * 2 // 5)
    logging.disable(logging.NOTSET)
    bootstrap.override(None)


def _ids(api: Api, token: str) -> dict[str, list[str]]:
    """Ids of a job and a batch of each kind."""
    ended = [api.submit(token), api.submit(token, job_type="security_analysis")]
    finished = api.call("POST", "/batches", ["a", "b"], token).json["batch_id"]
    work(api)
    waiting = [api.submit(token), api.submit(token, delay=3_000)]
    running = api.call("POST", "/batches", ["a", "b"], token).json["batch_id"]
    return {
        "job_id": [*ended, *waiting],
        "batch_id": [finished, running],
        "name": ["general", "export", "security_analysis"],
        "model": ["gpt-4o-mini"],
    }


def test_no_answer_differs_from_the_document(answers: Answers) -> None:
    """No 5xx, no undocumented status, content type, header or field; what the document forbids is refused, what it allows is not."""
    assert answers.total > 3_000
    if answers.problems:
        pytest.fail(str(answers), pytrace=False)


@pytest.mark.parametrize("operation", ACCEPTED)
def test_most_requests_that_are_valid_in_the_document_are_accepted(answers: Answers, operation: str) -> None:
    statuses = answers.statuses[operation]
    accepted = sum(count for status, count in statuses.items() if status < 300)
    allowed = sum(count for status, count in statuses.items() if status not in (403, 404, 409))

    assert accepted / allowed >= ACCEPTED[operation], statuses
