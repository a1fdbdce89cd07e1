"""Event streams during failures: a 5xx, a 429 or a wrong 204 would end an EventSource for good."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import pytest

from chalicelib.domain.failures import RequestRefused
from chalicelib.domain.jobs.job import Status
from tests.kit.events import Events
from tests.kit.http import Api, Reply, unreachable
from tests.kit.provider import Script
from tests.kit.work import work

HALF = Script(deltas=["abc"], error=RequestRefused())


def slice_of(api: Api, job_id: str, last: str | None = None) -> Reply:
    """Request a slice of the stream, after the event id `last`."""
    return api.call("GET", f"/jobs/{job_id}/stream", **({"last_event_id": last} if last else {}))


def events(api: Api, job_id: str, last: str | None = None) -> list[dict[str, object]]:
    reply = slice_of(api, job_id, last)
    assert reply.status == 200
    return Events(reply.text)


@pytest.mark.parametrize(
    ("store", "call"),
    [
        ("api_keys", "key"),
        ("request_counters", "increment"),
        ("jobs", "get"),
        ("chunks", "read"),
        ("results", "get"),
        ("semaphores", "acquire"),
        ("semaphores", "release"),
        ("subscriptions", "announce_reader"),
    ],
)
@pytest.mark.parametrize("failing", [(), (1,), (2,)], ids=["every call", "first call", "second call"])
def test_a_stream_slice_returns_200_when_a_store_is_unavailable(
    api: Api, store: str, call: str, failing: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slice has the available events, or a comment and the time after which to ask again."""
    api.container.provider.scripts[:] = [HALF]
    job_id = api.submit()
    work(api)
    retried(api, job_id)
    api.container.chunks.rows.clear()  # the text has to come from the result
    port, called = getattr(api.container, store), Mock()
    broken = unreachable(getattr(port, call), *failing)
    monkeypatch.setattr(port, call, lambda *args: (called(), broken(*args))[1])
    api.container.clock.advance(31)  # the cached API key has expired

    for last in (None, "1:3"):
        reply = slice_of(api, job_id, last)
        assert reply.status == 200, reply.text
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.text.startswith("retry: ")
        assert reply.text.startswith("retry: 3000\n: ") or Events(reply.text)
    assert called.called


def test_a_stream_slice_returns_200_on_an_internal_error(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client asks again after three seconds; other routes return 500."""

    def broken(*_args: object) -> None:
        raise ZeroDivisionError

    job_id = api.submit()
    work(api)
    monkeypatch.setattr(api.container.chunks, "read", broken)

    reply = slice_of(api, job_id, "1:5")
    assert (reply.status, reply.text[:14]) == (200, "retry: 3000\n: ")
    assert "ZeroDivision" not in reply.text
    assert api.call("GET", f"/jobs/{job_id}/text").status == 500


def test_a_stream_keeps_its_4xx_refusals(api: Api) -> None:
    """Repeating a forbidden or invalid request would not help."""
    job_id = api.submit()

    assert api.call("GET", f"/jobs/{job_id}/stream", token=None).status == 401
    assert api.call("GET", f"/jobs/{job_id}/stream", token="viewer").status == 403
    assert api.call("GET", f"/jobs/{job_id}/stream", token="stranger").status == 404
    assert api.call("GET", f"/jobs/{job_id}/stream", last_event_id="nonsense").status == 400


def test_a_gap_in_a_stream_is_reported_once(api: Api) -> None:
    """The id of `gap` lies behind the lost text, so the next slice waits for new text."""
    api.container.provider.scripts[:] = [HALF, Script()]
    job_id = api.submit()
    work(api)
    api.container.chunks.rows.clear()
    api.container.results.clear()
    api.call("POST", f"/jobs/{job_id}/retry")
    first = events(api, job_id)
    assert [event["event"] for event in first] == ["connected", "gap"]

    second = slice_of(api, job_id, str(first[-1]["id"]))
    work(api)
    third = events(api, job_id, str(first[-1]["id"]))

    assert second.text.startswith("retry: 3000")
    assert [event["event"] for event in third if event["event"] in ("gap", "reset", "job_completed")] == ["reset", "job_completed"]


def ended_in_run_one(api: Api) -> tuple[str, str]:
    """A failed job and the id of its stream's last event."""
    api.container.provider.scripts[:] = [HALF, Script()]
    job_id = api.submit()
    work(api)
    last = str(events(api, job_id)[-1]["id"])
    assert last == "1:3:end"
    assert slice_of(api, job_id, last).status == 204
    return job_id, last


def retried(api: Api, job_id: str) -> None:
    assert api.call("POST", f"/jobs/{job_id}/retry").status == 202


def retried_and_run(api: Api, job_id: str) -> None:
    retried(api, job_id)
    work(api)


def retried_and_cancelled(api: Api, job_id: str) -> None:
    retried(api, job_id)
    assert api.call("DELETE", f"/jobs/{job_id}").json["status"] == "cancelled"


@pytest.mark.parametrize(
    ("happens", "expected", "last"),
    [
        (retried_and_run, ["reset", "job_completed"], "2:12:end:2"),
        (retried_and_cancelled, ["job_cancelled"], "1:3:end:2"),
        (retried, ["connected"], "1:3"),
    ],
)
def test_a_stream_continues_into_the_next_run(api: Api, happens: Callable[[Api, str], None], expected: list[str], last: str) -> None:
    """A client at the end of run 1 receives run 2, even if run 2 is cancelled before its start."""
    job_id, end = ended_in_run_one(api)
    happens(api, job_id)

    after = events(api, job_id, end)

    states = ("reset", "connected", "job_completed", "job_cancelled")
    assert [event["event"] for event in after if event["event"] in states] == expected
    assert after[-1]["id"] == last
    if api.job(job_id).status is Status.QUEUED:
        assert not Events(slice_of(api, job_id, last).text)
    else:
        assert slice_of(api, job_id, last).status == 204


@pytest.mark.parametrize("last", ["1:999999999998", "999999999:999999999999", "1:9999999999:v3", "1:999999999998:end"])
def test_a_last_event_id_beyond_the_text_counts_as_its_end(api: Api, last: str) -> None:
    """Invented ids of a client must not cause an error."""
    job_id = api.submit()
    work(api)

    reply = slice_of(api, job_id, last)

    assert reply.status in (200, 204)
    if reply.status == 200:
        assert [event["event"] for event in Events(reply.text)][-1] == "job_completed"
