"""Event streams in slices, text by offset, and tickets, through `app.py`."""

from __future__ import annotations

import pytest

from chalicelib.domain.failures import StreamCut
from chalicelib.services.streaming.long_polling import slots_of
from tests.kit.events import Events, read_whole_stream
from tests.kit.http import Api
from tests.kit.provider import Script
from tests.kit.work import work


def test_a_stream_can_be_read_slice_by_slice_to_its_end(api: Api) -> None:
    """The token events joined equal the result; the request after the last event gets 204."""
    job_id = api.submit()
    work(api)

    events, requests = read_whole_stream(api, f"/jobs/{job_id}/stream")

    assert events[0]["event"] == "connected"
    assert "".join(event["data"]["text"] for event in events if event["event"] == "tokens") == "Hello, world"
    assert [event["event"] for event in events].count("job_completed") == 1
    assert events[-1]["id"] == "1:12:end"
    assert requests[-1].status == 204


def test_a_slice_contains_only_events_after_the_last_event_id(api: Api) -> None:
    """A client that received a torn slice loses nothing, because the end event has its own id."""
    job_id = api.submit()
    work(api)

    half = Events(api.call("GET", f"/jobs/{job_id}/stream", last_event_id="1:5").text)
    end = Events(api.call("GET", f"/jobs/{job_id}/stream", last_event_id="1:12").text)

    assert [event["data"].get("text") for event in half if event["event"] == "tokens"] == [", world"]
    assert [event["event"] for event in end] == ["job_completed"]


def test_a_slice_without_new_events_is_held_for_20_seconds(api: Api) -> None:
    """The response then carries a longer `retry:`, to slow down clients of a quiet job."""
    job_id = api.submit()
    first = Events(api.call("GET", f"/jobs/{job_id}/stream").text)
    before = api.container.clock.now()

    quiet = api.call("GET", f"/jobs/{job_id}/stream", last_event_id=first[-1]["id"] or "0:0")

    assert [event["event"] for event in first] == ["connected"]
    assert quiet.status == 200
    assert quiet.headers["content-type"].startswith("text/event-stream")
    assert quiet.text.startswith("retry: 3000")
    assert 20_000 <= api.container.clock.now() - before < 21_000


def test_a_client_of_a_failed_attempt_receives_a_reset(api: Api) -> None:
    """The text of the failed attempt is void; the client starts over with the new attempt."""
    api.container.provider.scripts[:] = [Script(deltas=["half"], error=StreamCut()), Script(deltas=["whole"])]
    job_id = api.submit()
    work(api)
    before = Events(api.call("GET", f"/jobs/{job_id}/stream").text)
    assert [event["event"] for event in before if event["event"] in ("tokens", "retrying")] == ["tokens", "retrying"]
    api.container.clock.advance(10)
    work(api)

    after = Events(api.call("GET", f"/jobs/{job_id}/stream", last_event_id=before[-1]["id"]).text)

    assert after[0]["event"] == "reset"
    assert after[0]["data"]["attempt"] == 2
    assert "".join(event["data"]["text"] for event in after if event["event"] == "tokens") == "whole"
    assert after[-1]["id"] == "2:5:end"


@pytest.mark.parametrize("last_event_id", ["x", "1", "1:", ":", "-1:0", "1:2:3", "1:2:end:x", "١:٢", "9" * 40 + ":0"])
def test_a_malformed_last_event_id_returns_400(api: Api, last_event_id: str) -> None:
    job_id = api.submit()

    assert api.call("GET", f"/jobs/{job_id}/stream", last_event_id=last_event_id).status == 400


def test_a_stream_over_its_rate_limit_gets_a_longer_retry_and_no_429(api: Api) -> None:
    """A 429 would end an EventSource for good, so streams have a rate counter of their own."""
    job_id = api.submit()
    first = api.call("GET", f"/jobs/{job_id}/stream")
    for _ in range(700):
        api.container.request_counters.increment("stream#key_user", api.container.clock.now() // 60_000, 0)

    limited = api.call("GET", f"/jobs/{job_id}/stream")

    assert (first.status, limited.status) == (200, 200)
    assert first.headers["ratelimit-policy"] == '"stream";q=600;w=60'
    assert first.text.startswith("retry: 250")
    assert limited.text.startswith("retry: 3000")
    assert api.call("GET", "/me").headers["ratelimit"].startswith('"key";r=598;')


def test_a_stream_without_a_free_long_poll_slot_is_answered_at_once(api: Api) -> None:
    """Held requests are bounded so that subscribers never starve submitters."""
    job_id = api.submit()
    now = api.container.clock.now()
    for _ in range(100):
        api.container.semaphores.acquire("held", range(100), now + 60_000, now)

    reply = api.call("GET", f"/jobs/{job_id}/stream", last_event_id="0:5")

    assert reply.status == 200
    assert api.container.clock.now() == now


def test_a_tenant_may_hold_half_of_the_long_poll_slots(api: Api) -> None:
    """However many requests of one tenant wait, another tenant's are held too."""
    job_id = api.submit("stranger")
    now, size = api.container.clock.now(), api.container.max_long_polls
    mine, others = (set(slots_of(tenant, size)) for tenant in ("acme", "other"))
    for _ in range(size):
        api.container.semaphores.acquire("held", slots_of("acme", size), now + 60_000, now)

    api.call("GET", f"/jobs/{job_id}/stream", last_event_id="0:5", token="stranger")

    assert (len(mine), len(others)) == (size // 2, size // 2)
    assert len(others - mine) > size // 8
    assert api.container.clock.now() >= now + 19_000


def test_a_ticket_only_streams_the_job_named_in_it(api: Api) -> None:
    """A ticket expires, and it can neither cancel its job nor read another."""
    mine, other = api.submit(), api.submit()
    made = api.call("POST", "/stream-tickets", {"jobs": [mine], "expires_in": 60})
    ticket = made.json["ticket"]

    assert made.status == 201
    assert api.call("GET", f"/jobs/{mine}/stream?ticket={ticket}", token=None).status == 200
    assert api.call("GET", f"/jobs/{other}/stream?ticket={ticket}", token=None).status == 404
    assert api.call("DELETE", f"/jobs/{mine}?ticket={ticket}", token=None).status == 401
    assert api.call("GET", f"/jobs/{mine}/stream?ticket=hrt_guessed", token=None).status == 401
    api.container.clock.advance(61)
    assert api.call("GET", f"/jobs/{mine}/stream?ticket={ticket}", token=None).status == 401


def test_a_ticket_request_for_another_tenants_job_returns_404(api: Api) -> None:
    """A value of `jobs` other than a list returns 400."""
    job_id = api.submit()

    assert api.call("POST", "/stream-tickets", {"jobs": [job_id]}, "stranger").status == 404
    assert api.call("POST", "/stream-tickets", {"jobs": "all"}).status == 400


def test_text_can_be_read_from_any_offset(api: Api) -> None:
    """The response covers `[offset, next_offset)` of the attempt; `done` means no more text."""
    job_id = api.submit()
    empty = api.call("GET", f"/jobs/{job_id}/text").json
    work(api)

    part = api.call("GET", f"/jobs/{job_id}/text?offset=7").json
    beyond = api.call("GET", f"/jobs/{job_id}/text?offset=99").json

    assert (empty["text"], empty["done"]) == ("", False)
    assert (part["attempt"], part["text"], part["next_offset"], part["done"]) == (1, "world", 12, True)
    assert (beyond["text"], beyond["done"]) == ("", True)
    assert api.call("GET", f"/jobs/{job_id}/text?offset=-1").status == 400


def test_a_result_has_text_usage_cost_and_timings(api: Api) -> None:
    """Before the job completes, the response is 202 with Retry-After."""
    job_id = api.submit()
    pending = api.call("GET", f"/jobs/{job_id}/result")
    work(api)
    result = api.call("GET", f"/jobs/{job_id}/result").json

    assert (pending.status, pending.headers["retry-after"]) == (202, "2")
    assert (result["status"], result["output"], result["parsed"], result["finish_reason"]) == ("completed", "Hello, world", None, "stop")
    assert result["usage"]["total_tokens"] == 13
    assert result["cost"] == "0.0000033"
    assert result["timings"]["total"] >= 0
    assert api.call("GET", f"/jobs/{job_id}/attempts").json["data"][0]["attempt"] == 1


def test_progress_reports_stages_percentage_and_history(api: Api) -> None:
    """The percentage ends at 100, and the history lists job and stage events in order of time."""
    job_id = api.submit()
    before = api.call("GET", f"/jobs/{job_id}/progress").json
    work(api)
    after = api.call("GET", f"/jobs/{job_id}/progress").json
    history = api.call("GET", f"/jobs/{job_id}/progress-history").json

    assert (before["progress_percentage"], before["queue_position"]) == (0, 1)
    assert after["progress_percentage"] == 100
    assert [(stage["name"], stage["status"]) for stage in after["stages"]] == [
        (name, "completed") for name in ("setup", "generation", "finalization")
    ]
    assert after["tokens_received"] == 3
    assert after["performance_metrics"]["api_call_count"] == 1
    assert [event["name"] for event in history["data"] if event["kind"] == "job"] == [
        "created",
        "queued",
        "started",
        "first_token",
        "completed",
    ]
    assert {event["kind"] for event in history["data"]} == {"job", "stage"}
    assert [event["at"] for event in history["data"]] == sorted(event["at"] for event in history["data"])


def test_a_synchronous_submission_waits_for_its_result(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """`async: false` returns 200 with the result if the job completes in time, otherwise 202."""
    sleep = api.container.clock.sleep

    def sleep_and_work(seconds: float) -> None:
        sleep(seconds)
        work(api)

    monkeypatch.setattr(api.container.clock, "sleep", sleep_and_work)
    in_time = api.call("POST", "/jobs", {"prompt": "x", "async": False})
    monkeypatch.setattr(api.container.clock, "sleep", sleep)
    too_late = api.call("POST", "/jobs", {"prompt": "x", "async": False})

    assert (in_time.status, in_time.json["output"]) == (200, "Hello, world")
    assert too_late.status == 202


def test_an_expired_result_returns_410(api: Api) -> None:
    """The stream of the job has a `gap` event and still ends with `job_completed`."""
    job_id = api.submit()
    work(api)
    api.container.chunks.rows.clear()
    api.container.results.clear()

    assert api.call("GET", f"/jobs/{job_id}/result").status == 410
    events = Events(api.call("GET", f"/jobs/{job_id}/stream").text)
    assert [event["event"] for event in events] == ["connected", "gap", "job_completed"]


def test_text_of_expired_chunks_is_read_from_the_result(api: Api) -> None:
    """Chunks expire before results do."""
    job_id = api.submit()
    work(api)
    api.container.chunks.rows.clear()

    assert api.call("GET", f"/jobs/{job_id}/text?offset=7").json["text"] == "world"


def test_the_text_of_an_earlier_attempt_can_be_read(api: Api) -> None:
    """The text comes from the stored result, or from the chunks once the result has expired."""
    api.container.provider.scripts[:] = [Script(deltas=["half"], error=StreamCut()), Script(deltas=["whole"])]
    job_id = api.submit()
    work(api)
    api.container.clock.advance(10)
    work(api)

    first = api.call("GET", f"/jobs/{job_id}/text?attempt=1").json
    api.container.results.clear()
    again = api.call("GET", f"/jobs/{job_id}/text?attempt=1").json

    assert (first["text"], first["done"]) == ("half", True)
    assert (again["text"], again["done"]) == ("half", True)
