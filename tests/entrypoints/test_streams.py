"""Event streams in slices, text by offset, and tickets, through `app.py`."""

from __future__ import annotations

import pytest

from chalicelib.domain.failures import StreamCut
from tests.kit.events import Events, read_whole_stream
from tests.kit.http import Api
from tests.kit.provider import Script
from tests.kit.work import work


def test_a_stream_is_read_slice_by_slice_to_its_end(api: Api) -> None:
    """What an EventSource puts together equals the result; after the last event it is told to stop."""
    job_id = api.submit()
    work(api)

    events, requests = read_whole_stream(api, f"/jobs/{job_id}/stream")

    assert events[0]["event"] == "connected"
    assert "".join(event["data"]["text"] for event in events if event["event"] == "tokens") == "Hello, world"
    assert [event["event"] for event in events].count("job_completed") == 1
    assert events[-1]["id"] == "1:12:end"
    assert requests[-1].status == 204


def test_a_slice_has_what_comes_after_the_last_event_id(api: Api) -> None:
    """Nothing that was received is sent again; a torn slice loses nothing, because the end has an id of its own."""
    job_id = api.submit()
    work(api)

    half = Events(api.call("GET", f"/jobs/{job_id}/stream", last_event_id="1:5").text)
    end = Events(api.call("GET", f"/jobs/{job_id}/stream", last_event_id="1:12").text)

    assert [event["data"].get("text") for event in half if event["event"] == "tokens"] == [", world"]
    assert [event["event"] for event in end] == ["job_completed"]


def test_a_quiet_slice_is_held_and_then_ends_with_a_comment(api: Api) -> None:
    """At the latest after 20 s, with a longer `retry:`; a queued job says that it is there."""
    job_id = api.submit()
    first = Events(api.call("GET", f"/jobs/{job_id}/stream").text)
    before = api.container.clock.now()

    quiet = api.call("GET", f"/jobs/{job_id}/stream", last_event_id=first[-1]["id"] or "0:0")

    assert [event["event"] for event in first] == ["connected"]
    assert quiet.status == 200
    assert quiet.headers["content-type"].startswith("text/event-stream")
    assert quiet.text.startswith("retry: 3000")
    assert 20_000 <= api.container.clock.now() - before < 21_000


def test_a_new_attempt_is_a_reset(api: Api) -> None:
    """A client in the text of an attempt that failed is told to start over."""
    api.container.provider.scripts[:] = [Script(deltas=["half"], error=StreamCut()), Script(deltas=["whole"])]
    job_id = api.submit()
    work(api)
    told = Events(api.call("GET", f"/jobs/{job_id}/stream").text)
    assert [event["event"] for event in told if event["event"] in ("tokens", "retrying")] == ["tokens", "retrying"]
    api.container.clock.advance(10)
    work(api)

    after = Events(api.call("GET", f"/jobs/{job_id}/stream", last_event_id=told[-1]["id"]).text)

    assert after[0]["event"] == "reset"
    assert after[0]["data"]["attempt"] == 2
    assert "".join(event["data"]["text"] for event in after if event["event"] == "tokens") == "whole"
    assert after[-1]["id"] == "2:5:end"


@pytest.mark.parametrize("said", ["x", "1", "1:", ":", "-1:0", "1:2:3", "1:2:end:x", "١:٢", "9" * 40 + ":0"])
def test_an_id_that_is_none_of_ours_is_refused(api: Api, said: str) -> None:
    job_id = api.submit()

    assert api.call("GET", f"/jobs/{job_id}/stream", last_event_id=said).status == 400


def test_a_stream_is_never_refused_for_rate(api: Api) -> None:
    """A 429 would end an EventSource for good: its slices are counted apart, and told to come more slowly when they are too many."""
    job_id = api.submit()
    first = api.call("GET", f"/jobs/{job_id}/stream")
    for _ in range(700):
        api.container.request_counters.increment("stream#key_user", api.container.clock.now() // 60_000, 0)

    hasty = api.call("GET", f"/jobs/{job_id}/stream")

    assert (first.status, hasty.status) == (200, 200)
    assert first.headers["ratelimit-policy"] == '"stream";q=600;w=60'
    assert first.text.startswith("retry: 250")
    assert hasty.text.startswith("retry: 3000")
    assert api.call("GET", "/me").headers["ratelimit"].startswith('"key";r=598;')


def test_without_a_free_slot_a_request_is_answered_at_once(api: Api) -> None:
    """Held requests are bounded, so that watchers never starve submitters."""
    job_id = api.submit()
    now = api.container.clock.now()
    for _ in range(100):
        api.container.semaphores.acquire("held", 100, now + 60_000, now)

    reply = api.call("GET", f"/jobs/{job_id}/stream", last_event_id="0:5")

    assert reply.status == 200
    assert api.container.clock.now() == now


def test_a_ticket_reads_what_it_names_and_nothing_else(api: Api) -> None:
    """It streams its job, expires, and can neither act nor read others."""
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


def test_a_ticket_for_somebody_elses_job_is_not_made(api: Api) -> None:
    job_id = api.submit()

    assert api.call("POST", "/stream-tickets", {"jobs": [job_id]}, "stranger").status == 404
    assert api.call("POST", "/stream-tickets", {"jobs": "all"}).status == 400


def test_text_is_read_from_any_offset(api: Api) -> None:
    """`[offset, next_offset)` of the attempt, `done` when there is no more."""
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
    """202 with Retry-After while there is none; then everything that was promised."""
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


def test_progress_has_stages_and_figures(api: Api) -> None:
    """The stages of the type with their times, and a percentage that ends at 100."""
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


def test_a_submission_can_be_held_for_its_result(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """`async: false` answers 200 with the result if it comes within 25 s, and 202 as usual otherwise."""
    sleep = api.container.clock.sleep

    def meanwhile(seconds: float) -> None:
        sleep(seconds)
        work(api)

    monkeypatch.setattr(api.container.clock, "sleep", meanwhile)
    held = api.call("POST", "/jobs", {"prompt": "x", "async": False})
    monkeypatch.setattr(api.container.clock, "sleep", sleep)
    given_up = api.call("POST", "/jobs", {"prompt": "x", "async": False})

    assert (held.status, held.json["output"]) == (200, "Hello, world")
    assert given_up.status == 202


def test_a_result_that_is_no_longer_kept_is_gone(api: Api) -> None:
    """410 for the result, `gap` on a stream, and the end is told all the same."""
    job_id = api.submit()
    work(api)
    api.container.chunks.rows.clear()
    api.container.results.clear()

    assert api.call("GET", f"/jobs/{job_id}/result").status == 410
    events = Events(api.call("GET", f"/jobs/{job_id}/stream").text)
    assert [event["event"] for event in events] == ["connected", "gap", "job_completed"]


def test_what_the_log_has_lost_comes_from_the_result(api: Api) -> None:
    """Chunks expire before results do; a replay does not notice."""
    job_id = api.submit()
    work(api)
    api.container.chunks.rows.clear()

    assert api.call("GET", f"/jobs/{job_id}/text?offset=7").json["text"] == "world"


def test_an_earlier_attempt_can_be_read(api: Api) -> None:
    """From its result; where that is no longer kept, from what the log still has."""
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
