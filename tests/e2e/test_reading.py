"""Reading jobs: lists, ETags, the error format and permissions."""

from __future__ import annotations

import pytest

from tests.e2e.stack import Api, Model, Stack
from tests.e2e.subscribers import EventSource, Socket

JOB_ROUTES = [
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
    """A completed job with the output "Read me."."""
    api, model = stack.api(), stack.model()
    model.reply("Read me.")
    created = api.submit(prompt="A secret.", config=model.config, metadata={"note": "secret"}, tags=["reading"])
    api.wait_for_end(created)
    return created


def test_job_list_is_paged_by_cursor(api: Api, model: Model) -> None:
    """Each job is listed once, newest first, and a cursor is valid for its query only."""
    model.reply("One of five.")
    created = [api.submit(config=model.config) for _ in range(5)]
    listed, cursor = [], None
    for _ in range(5):
        page = api.get("/jobs", model=model.name, limit=2, **({"cursor": cursor} if cursor else {}))
        assert len(page["data"]) <= 2
        listed += [job["job_id"] for job in page["data"]]
        last_cursor, cursor = cursor or page["next_cursor"], page["next_cursor"]
        if cursor is None:
            break

    assert listed == created[::-1]
    other_query = api.call("GET", "/jobs", query={"tag": "reading", "cursor": last_cursor})
    assert (other_query.status_code, other_query.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["", "/status", "/progress"])
def test_matching_etag_is_answered_with_304(api: Api, job_id: str, path: str) -> None:
    """Another ETag gets the whole response."""
    first = api.call("GET", f"/jobs/{job_id}{path}")
    same = api.call("GET", f"/jobs/{job_id}{path}", headers={"If-None-Match": first.headers["ETag"]})
    older = api.call("GET", f"/jobs/{job_id}{path}", headers={"If-None-Match": '"v1"'})

    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert (older.status_code, older.json()["job_id"]) == (200, job_id)


@pytest.mark.parametrize(("method", "path"), JOB_ROUTES)
def test_job_of_another_tenant_is_not_found(stack: Stack, job_id: str, method: str, path: str) -> None:
    """The response has the very words of a job that never existed."""
    stranger = stack.api("other_user")

    answer = stranger.call(method, f"/jobs/{job_id}{path}")
    unknown = stranger.call(method, f"/jobs/job_0{path}")

    assert (answer.status_code, unknown.status_code) == (404, 404)
    error, unknown_error = answer.json()["error"], unknown.json()["error"]
    assert error["code"] == unknown_error["code"] == "job_not_found"
    assert error["message"] == unknown_error["message"].replace("job_0", job_id)


def test_job_of_another_tenant_cannot_be_subscribed_or_listed(stack: Stack, job_id: str) -> None:
    stranger = stack.api("other_user")
    with Socket(stack, "other_user") as open_socket:
        frame = open_socket.ask({"action": "subscribe", "job_id": job_id})
    ticket = stranger.call("POST", "/stream-tickets", {"jobs": [job_id]})

    assert (frame["event"], frame["code"]) == ("error", "job_not_found")
    assert ticket.status_code == 404
    assert job_id not in [job["job_id"] for job in stranger.get("/jobs", limit=100)["data"]]


@pytest.mark.parametrize("path", CONTENT)
def test_viewer_is_refused_the_content_of_a_job(stack: Stack, job_id: str, path: str) -> None:
    answer = stack.api("viewer").call("GET", f"/jobs/{job_id}{path}")

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


def test_viewer_reads_a_job_record_without_content(stack: Stack, job_id: str) -> None:
    """Prompt, metadata and config are null; submitting and cancelling are forbidden."""
    viewer = stack.api("viewer")
    answer = viewer.call("GET", f"/jobs/{job_id}", query={"include": "prompt"})

    record = answer.json()
    assert (record["status"], record["prompt"], record["metadata"], record["config"]) == ("completed", None, None, None)
    assert "ecret" not in answer.text
    assert viewer.call("POST", "/jobs", {"prompt": "hello"}).status_code == 403
    assert viewer.call("DELETE", f"/jobs/{job_id}").status_code == 403


def test_operator_reads_the_result_of_another_users_job(stack: Stack, job_id: str) -> None:
    assert stack.api("operator").get(f"/jobs/{job_id}/result")["output"] == "Read me."


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer hr_nobody"}, {"Authorization": "Basic dTpw"}], ids=["none", "unknown", "basic"]
)
def test_request_without_a_valid_key_is_unauthenticated(stack: Stack, job_id: str, headers: dict[str, str]) -> None:
    """The response is the same for existing and unknown jobs."""
    anonymous = stack.api(None)

    answers = [anonymous.call("GET", path, headers=headers) for path in (f"/jobs/{job_id}", "/jobs/job_0", "/jobs", "/me")]

    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in answers} == {(401, "unauthenticated")}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nowhere"), ("GET", "/jobs/x/y/z"), ("PUT", "/jobs"), ("POST", "/health"), ("GET", "/")]
)
def test_unknown_route_has_the_error_shape(api: Api, method: str, path: str) -> None:
    """The gateway itself answers, and a client need not know that."""
    answer = api.call(method, path)

    body = answer.json()
    assert answer.status_code in (404, 405)
    assert body["success"] is False
    assert set(body["error"]) == {"code", "message", "request_id", "details"}
    assert body["error"]["code"] in ("not_found", "method_not_allowed")
    assert answer.headers["X-Request-Id"] == body["error"]["request_id"]
    assert answer.headers["Headrace-Version"] == "1"


def test_response_has_request_id_version_and_rate_limit_headers(api: Api, job_id: str) -> None:
    headers = api.call("GET", f"/jobs/{job_id}").headers

    assert headers["X-Request-Id"]
    assert headers["Headrace-Version"] == "1"
    assert headers["RateLimit"].startswith('"key";r=')
    assert headers["RateLimit-Policy"].startswith('"key";q=')


def test_ticket_streams_its_job_and_nothing_else(stack: Stack, api: Api, job_id: str, model: Model) -> None:
    """An EventSource uses it for every request, and other routes refuse it."""
    model.reply("Other.")
    other = api.submit(config=model.config)
    ticket = api.call("POST", "/stream-tickets", {"jobs": [job_id]}).json()["ticket"]
    anonymous = stack.api(None)
    events = EventSource(anonymous, job_id, ticket)

    events.watch()

    assert (events.text, events.names[-1]) == ("Read me.", "job_completed")
    assert anonymous.call("GET", f"/jobs/{other}/stream", query={"ticket": ticket}).status_code == 404
    assert anonymous.call("GET", f"/jobs/{job_id}/result", query={"ticket": ticket}).status_code == 401
    assert anonymous.call("GET", f"/jobs/{job_id}/stream", query={"ticket": "hrt_wrong"}).status_code == 401
