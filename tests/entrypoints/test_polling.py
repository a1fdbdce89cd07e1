"""Long polling, ETags and results of any size, through `app.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from tests.kit.http import Api, unreachable
from tests.kit.provider import Script
from tests.kit.work import work


def claimed(api: Api) -> Job:
    """A claimed job with three characters of text."""
    queued = api.job(api.submit())
    running = transitions.claim(queued, 1, "owner", api.container.clock.now())
    assert running is not None
    api.container.jobs.replace(queued, running)
    write(api, running, 0)
    return running


def write(api: Api, job: Job, start: int) -> None:
    api.container.chunks.append(Chunk(job_id=job.id, attempt=1, start=start, text="abc", at=1))


def at_second(api: Api, second: float, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `do` once so many seconds have passed, while a request is held."""
    clock, pending, sleep = api.container.clock, [do], api.container.clock.sleep
    due_at = clock.now() + second * 1000

    def sleep_then_do(seconds: float) -> None:
        sleep(seconds)
        if pending and clock.now() >= due_at:
            pending.pop()()

    monkeypatch.setattr(clock, "sleep", sleep_then_do)


@pytest.mark.parametrize("suffix", ["/status", "/progress"])
def test_new_text_changes_the_etag(api: Api, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll with an old ETag is answered at once, a poll with the current one at the next text."""
    job = claimed(api)
    tag = api.call("GET", f"/jobs/{job.id}{suffix}").headers["etag"]
    write(api, job, 3)
    before = api.container.clock.now()

    behind = api.call("GET", f"/jobs/{job.id}{suffix}?wait=20", if_none_match=tag)
    assert (behind.status, api.container.clock.now()) == (200, before)
    at_second(api, 7, lambda: write(api, job, 6), monkeypatch)
    held = api.call("GET", f"/jobs/{job.id}{suffix}?wait=20", if_none_match=behind.headers["etag"])

    assert held.status == 200
    assert held.headers["etag"] == f'"v{job.version}.9"'
    assert 7_000 <= api.container.clock.now() - before < 8_000


def test_the_etag_of_a_job_changes_only_with_its_version(api: Api) -> None:
    """An ETag of `/progress` contains a text offset and never matches the job itself."""
    job = claimed(api)
    tag = api.call("GET", f"/jobs/{job.id}").headers["etag"]
    write(api, job, 3)

    assert api.call("GET", f"/jobs/{job.id}", if_none_match=tag).status == 304
    assert api.call("GET", f"/jobs/{job.id}", if_none_match=f'"v{job.version}.3"').status == 200


@pytest.mark.parametrize("route", ["/status?wait=20", "/progress?wait=20", "/text?offset=3&wait=20", "/stream?offset=3"])
def test_a_waiting_request_is_announced_as_a_reader(api: Api, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker writes text every second for readers; announcements are 5 s apart or more."""
    job = claimed(api)
    announced: list[int] = []
    monkeypatch.setattr(api.container.subscriptions, "announce_reader", lambda job_id, until: announced.append(until))
    started_at = api.container.clock.now()

    assert api.call("GET", f"/jobs/{job.id}{route}").status == 200

    assert 4 <= len(announced) <= 5
    assert announced[0] == started_at + 10_000
    assert all(later - earlier >= 5_000 for earlier, later in pairwise(announced))


@pytest.mark.parametrize("route", ["/status?wait=20", "/text?offset=3&wait=20"])
def test_a_reader_is_answered_when_the_announcement_fails(api: Api, route: str) -> None:
    """The same holds when long-poll slots cannot be acquired or released."""
    job = claimed(api)
    api.container.subscriptions.announce_reader = unreachable(api.container.subscriptions.announce_reader)  # type: ignore[method-assign]
    api.container.semaphores.release = unreachable(api.container.semaphores.release)  # type: ignore[method-assign]
    assert api.call("GET", f"/jobs/{job.id}{route}").status == 200

    api.container.semaphores.acquire = unreachable(api.container.semaphores.acquire)  # type: ignore[method-assign]
    assert api.call("GET", f"/jobs/{job.id}{route}").status == 200


def test_requests_are_answered_when_the_rate_counter_is_unavailable(api: Api) -> None:
    """The rate limit fails open: an outage of its table refuses no request."""
    api.container.request_counters.increment = unreachable(api.container.request_counters.increment)  # type: ignore[method-assign]

    reply = api.call("GET", "/me")

    assert reply.status == 200
    assert reply.headers["ratelimit-policy"] == '"key";q=600;w=60'


def test_a_result_is_cut_at_the_length_in_the_job_record(api: Api) -> None:
    """A stalled worker may have written more text after the job was ended without that worker."""
    api.container.provider.scripts[:] = [Script(deltas=['{"a"', ": 1}"])]
    job_id = api.submit(config={"response_format": "json"})
    work(api)
    whole = api.call("GET", f"/jobs/{job_id}/result").json
    job = api.job(job_id)
    api.container.jobs.records[job_id] = replace(job, status=Status.CANCELLED, length=4, version=job.version + 1)

    cut = api.call("GET", f"/jobs/{job_id}/result").json

    assert (whole["output"], whole["parsed"]) == ('{"a": 1}', {"a": 1})
    assert (cut["output"], cut["parsed"], cut["length"]) == ('{"a"', None, 4)


@pytest.mark.parametrize("character", ["x", "\x01", "é", "字", "🎉", '"'])
def test_a_result_too_large_for_one_response_is_redirected(api: Api, character: str) -> None:
    """The 307 leads to a signed link, or to the text in slices below the size limit of Lambda."""
    api.container.provider.scripts[:] = [Script(deltas=[character * 100_000] * 60, every=0.001)]
    job_id = api.submit()
    work(api)

    in_slices = api.call("GET", f"/jobs/{job_id}/result")
    api.container.results.links[job_id, 1] = "https://bucket.example/text?signature=s"
    by_link = api.call("GET", f"/jobs/{job_id}/result")

    assert (in_slices.status, in_slices.headers["location"]) == (307, "text")
    assert (by_link.status, by_link.headers["location"]) == (307, "https://bucket.example/text?signature=s")
    assert (by_link.json["status"], by_link.json["length"]) == ("completed", 6_000_000)
    offset, done = 0, False
    while not done:
        part = api.call("GET", f"/jobs/{job_id}/text?offset={offset}").json
        offset, done = part["next_offset"], part["done"]
    assert offset == 6_000_000


def test_a_result_below_the_size_limit_is_returned_inline(api: Api) -> None:
    api.container.provider.scripts[:] = [Script(deltas=["x" * 100_000] * 40, every=0.001)]
    job_id = api.submit()
    work(api)

    reply = api.call("GET", f"/jobs/{job_id}/result")

    assert (reply.status, len(reply.json["output"])) == (200, 4_000_000)


def test_a_synchronous_submission_with_a_too_large_result_returns_202(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client would follow a redirect of a POST by posting again."""
    api.container.provider.scripts[:] = [Script(deltas=["x" * 100_000] * 60, every=0.001)]
    at_second(api, 0, lambda: work(api), monkeypatch)

    reply: Any = api.call("POST", "/jobs", {"prompt": "x", "async": False})

    assert (reply.status, reply.json["status"]) == (202, "queued")


@pytest.mark.parametrize("name", ["x", "x" * 3000, "job_1", "job_" + "0" * 25 + "U", "job_" + "0" * 27, "%00", "job_" + "é" * 26])
def test_an_invalid_job_id_returns_404_without_reading_the_table(api: Api, name: str) -> None:
    api.container.jobs.get = unreachable(api.container.jobs.get)  # type: ignore[method-assign]

    for method, suffix in (("GET", ""), ("GET", "/status"), ("GET", "/text"), ("GET", "/stream"), ("DELETE", ""), ("POST", "/retry")):
        reply = api.call(method, f"/jobs/{name}{suffix}")
        assert (reply.status, reply.json["error"]["code"]) == (404, "job_not_found"), (method, suffix)


@pytest.mark.parametrize("query", ["offset=9999999999", "attempt=1000000001", "offset=99999999999999"])
def test_an_offset_or_attempt_above_its_maximum_returns_400(api: Api, query: str) -> None:
    job_id = api.submit()

    assert api.call("GET", f"/jobs/{job_id}/text?{query}").status == 400
    assert api.call("GET", f"/jobs/{job_id}/text?offset=9999999998").status == 200
