"""Reading: lists, ETags, errors in one shape, and who may see what."""

from __future__ import annotations

import pytest

from tests.e2e.cloud import Api, Model, Stack
from tests.e2e.watchers import EventSource, Socket

OF_A_JOB = [
    ("GET", ""),
    ("GET", "/status"),
    ("GET", "/progress"),
    ("GET", "/progress-history"),
    ("GET", "/text"),
    ("GET", "/result"),
    ("GET", "/attempts"),
    ("GET", "/stream"),
    ("DELETE", ""),
    ("POST", "/cancel"),
    ("POST", "/retry"),
]
CONTENT = ["/progress-history", "/text", "/result", "/attempts", "/stream"]


@pytest.fixture(scope="module")
def job_id(stack: Stack) -> str:
    """A completed job that says "Read me."."""
    api, model = stack.api(), stack.model()
    model.say("Read me.")
    made = api.submit(prompt="A secret.", config=model.config, metadata={"note": "secret"}, tags=["reading"])
    api.wait_for_end(made)
    return made


def test_a_list_is_paged_by_its_cursor(api: Api, model: Model) -> None:
    """Newest first, each job once, none missing; a cursor belongs to its query."""
    model.say("One of five.")
    made = [api.submit(config=model.config) for _ in range(5)]
    listed, cursor = [], None
    for _ in range(5):
        page = api.get("/jobs", model=model.name, limit=2, **({"cursor": cursor} if cursor else {}))
        assert len(page["data"]) <= 2
        listed += [job["job_id"] for job in page["data"]]
        borrowed, cursor = cursor or page["next_cursor"], page["next_cursor"]
        if cursor is None:
            break

    assert listed == made[::-1]
    elsewhere = api.call("GET", "/jobs", query={"tag": "reading", "cursor": borrowed})
    assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["", "/status", "/progress"])
def test_what_has_not_changed_is_not_sent_again(api: Api, job_id: str, path: str) -> None:
    """304 for the ETag of the last answer, the whole answer for another."""
    first = api.call("GET", f"/jobs/{job_id}{path}")
    same = api.call("GET", f"/jobs/{job_id}{path}", headers={"If-None-Match": first.headers["ETag"]})
    older = api.call("GET", f"/jobs/{job_id}{path}", headers={"If-None-Match": '"v1"'})

    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert (older.status_code, older.json()["job_id"]) == (200, job_id)


@pytest.mark.parametrize(("method", "path"), OF_A_JOB)
def test_another_tenants_job_does_not_exist(stack: Stack, job_id: str, method: str, path: str) -> None:
    """404 everywhere, in the very words of a job that never was."""
    stranger = stack.api("other_user")

    answer = stranger.call(method, f"/jobs/{job_id}{path}")
    nothing = stranger.call(method, f"/jobs/job_0{path}")

    assert (answer.status_code, nothing.status_code) == (404, 404)
    told, told_of_nothing = answer.json()["error"], nothing.json()["error"]
    assert told["code"] == told_of_nothing["code"] == "job_not_found"
    assert told["message"] == told_of_nothing["message"].replace("job_0", job_id)


def test_another_tenants_job_cannot_be_watched_or_listed(stack: Stack, job_id: str) -> None:
    """Neither over a socket, nor with a ticket, nor in a list."""
    stranger = stack.api("other_user")
    with Socket(stack, "other_user") as open_socket:
        frame = open_socket.ask({"action": "subscribe", "job_id": job_id})
    ticket = stranger.call("POST", "/stream-tickets", {"jobs": [job_id]})

    assert (frame["event"], frame["code"]) == ("error", "job_not_found")
    assert ticket.status_code == 404
    assert job_id not in [job["job_id"] for job in stranger.get("/jobs", limit=100)["data"]]


@pytest.mark.parametrize("path", CONTENT)
def test_a_viewer_gets_no_content(stack: Stack, job_id: str, path: str) -> None:
    """403: the job is there, its content is not for viewers."""
    answer = stack.api("viewer").call("GET", f"/jobs/{job_id}{path}")

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


def test_a_viewer_sees_a_record_without_content(stack: Stack, job_id: str) -> None:
    """Statuses and figures; what people wrote is null. It may submit nothing."""
    viewer = stack.api("viewer")
    answer = viewer.call("GET", f"/jobs/{job_id}", query={"include": "prompt"})

    record = answer.json()
    assert (record["status"], record["prompt"], record["metadata"], record["config"]) == ("completed", None, None, None)
    assert "ecret" not in answer.text
    assert viewer.call("POST", "/jobs", {"prompt": "hello"}).status_code == 403
    assert viewer.call("DELETE", f"/jobs/{job_id}").status_code == 403


def test_an_operator_reads_the_jobs_of_its_tenant(stack: Stack, job_id: str) -> None:
    """With content."""
    assert stack.api("operator").get(f"/jobs/{job_id}/result")["output"] == "Read me."


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer hr_nobody"}, {"Authorization": "Basic dTpw"}], ids=["none", "unknown", "basic"]
)
def test_without_a_key_there_is_nothing(stack: Stack, job_id: str, headers: dict[str, str]) -> None:
    """401, the same for jobs that are and that are not."""
    nobody = stack.api(None)

    answers = [nobody.call("GET", path, headers=headers) for path in (f"/jobs/{job_id}", "/jobs/job_0", "/jobs", "/me")]

    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in answers} == {(401, "unauthenticated")}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nowhere"), ("GET", "/jobs/x/y/z"), ("PUT", "/jobs"), ("POST", "/health"), ("GET", "/")]
)
def test_an_unknown_route_is_told_in_our_shape(api: Api, method: str, path: str) -> None:
    """The gateway itself answers, and a client need not know that."""
    answer = api.call(method, path)

    body = answer.json()
    assert answer.status_code in (404, 405)
    assert body["success"] is False
    assert set(body["error"]) == {"code", "message", "request_id", "details"}
    assert body["error"]["code"] in ("not_found", "method_not_allowed")
    assert answer.headers["X-Request-Id"] == body["error"]["request_id"]
    assert answer.headers["Headrace-Version"] == "1"


def test_every_answer_says_who_answered_and_what_is_left(api: Api, job_id: str) -> None:
    """Request id, version, rate."""
    headers = api.call("GET", f"/jobs/{job_id}").headers

    assert headers["X-Request-Id"]
    assert headers["Headrace-Version"] == "1"
    assert headers["RateLimit"].startswith('"key";r=')
    assert headers["RateLimit-Policy"].startswith('"key";q=')


def test_a_ticket_watches_its_job_and_nothing_else(stack: Stack, api: Api, job_id: str, model: Model) -> None:
    """On an EventSource it works for every slice; it reads no other job, and no other route takes it."""
    model.say("Other.")
    other = api.submit(config=model.config)
    ticket = api.call("POST", "/stream-tickets", {"jobs": [job_id]}).json()["ticket"]
    nobody = stack.api(None)
    events = EventSource(nobody, job_id, ticket)

    events.watch()

    assert (events.text, events.names[-1]) == ("Read me.", "job_completed")
    assert nobody.call("GET", f"/jobs/{other}/stream", query={"ticket": ticket}).status_code == 404
    assert nobody.call("GET", f"/jobs/{job_id}/result", query={"ticket": ticket}).status_code == 401
    assert nobody.call("GET", f"/jobs/{job_id}/stream", query={"ticket": "hrt_wrong"}).status_code == 401
