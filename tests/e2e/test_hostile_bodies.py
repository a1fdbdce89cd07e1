"""Hostile bodies over HTTP, while another tenant is served."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.stack import Api, Stack, until
from tests.kit.hostile_bodies import BODIES, Hostile
from tests.kit.hostile_files import FILES

# One of each kind; tests/entrypoints/test_hostile_bodies.py sends all of them. Each counts as 60 requests of its key.
OVER_HTTP = (
    "tags of lists",
    "notify of numbers",
    "metadata of lists",
    "unknown fields",
    "deepest lists",
    "escapes in a prompt",
    "as many tags as values are allowed",
    "a schema that doubles",
    "a batch of lists",
    "lines of lists",
    "a csv of a million columns",
    "a csv with a quote over many lines",
    "a text of empty lines",
)
ATTACKERS = ("user", "operator")  # the keys that take turns


@contextmanager
def other_tenant(api: Api) -> Iterator[list[int]]:
    """Send a small request after the other as another tenant. Yields the status of each."""
    over, answers = threading.Event(), list[int]()

    def ask() -> None:
        while not over.is_set():
            answers.append(api.call("POST", "/jobs/estimate", {"prompt": "What does this cost?"}).status_code)
            over.wait(0.5)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield answers
    finally:
        over.set()
        asking.join()


def send(api: Api, hostile: Hostile) -> tuple[int, str]:
    """Send a body, again in the next minute while the key is over its rate limit."""
    content = hostile.make_body().encode("utf-8", "surrogatepass")
    for _ in range(5):
        answer = api.call("POST", hostile.path, content=content, headers={"Content-Type": hostile.content_type})
        if answer.status_code != 429:
            return answer.status_code, answer.text
        time.sleep(int(answer.headers["Retry-After"]) + 1)
    raise AssertionError("the key stays over its rate limit")


def test_another_tenant_is_answered_while_hostile_bodies_are_refused(stack: Stack) -> None:
    attackers, other = [stack.api(name) for name in ATTACKERS], stack.api("other_user")
    wrong = []

    with other_tenant(other) as answers:
        for number, name in enumerate(OVER_HTTP):
            hostile = BODIES[name]
            status, text = send(attackers[number % len(attackers)], hostile)
            if status != hostile.status or hostile.says not in text:
                wrong.append((name, status, text[:300]))
        until(lambda: len(answers) > 10, "requests of the other tenant")

    assert wrong == []
    assert set(answers) == {200}


def test_hostile_file_is_refused_by_the_worker_that_reads_it(stack: Stack) -> None:
    """The other jobs of the worker go on."""
    api, file = stack.api("admin"), FILES["lines of lists"]
    upload = api.upload(file.content_type, b"".join(file.opened().pieces))

    neighbour = api.submit(prompt="Say something.")
    result = api.wait_for_end(api.submit(prompt=None, job_type="csv_import", input={"upload_id": upload}))

    assert (result["status"], result["error"]["code"]) == ("failed", "request_invalid"), result
    assert file.says in result["error"]["message"]
    assert api.wait_for_end(neighbour)["status"] == "completed"
