"""Subscriptions to batches over WebSockets, through `app.py`: progress, ended rows and the end of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from chalicelib import bootstrap
from chalicelib.domain.auth.identity import Role
from chalicelib.domain.batches.counters import counter_key
from chalicelib.domain.failures import RequestRefused
from chalicelib.domain.ids import job_id_of_row
from chalicelib.services.batches.broadcast_progress import MAX_ROW_FRAMES
from cli.reducer import TextAssembler
from tests.kit import batches
from tests.kit.change_records import change
from tests.kit.failing_store import refusing
from tests.kit.http import CONTEXT, Api
from tests.kit.provider import Script
from tests.kit.sockets import Socket
from tests.kit.work import work

Frame = dict[str, Any]


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api(*(Script(deltas=["all ", "of it"]) for _ in range(200)))
    yield made
    bootstrap.override(None)


def connected_socket(api: Api, token: str = "user", name: str = "c1") -> Socket:
    """Open a socket with the key of `token`."""
    made = Socket(api, name)
    assert made.connect(token) == 200
    return made


def frames_of(socket: Socket, event: str) -> list[Frame]:
    """The frames that the socket has received of one event."""
    return [frame for frame in socket.frames if frame["event"] == event]


def test_a_subscriber_receives_every_row_and_the_end_of_a_batch(api: Api) -> None:
    batch_id, socket = batches.submit(api, 20), connected_socket(api)

    [connected] = socket.send({"action": "subscribe", "batch_id": batch_id, "id": 7})
    batches.settle(api)

    assert (connected["event"], connected["status"], connected["reply_to"]) == ("connected", "queued", 7)
    assert connected["counts"]["total"] == connected["counts"]["waiting"] == 20
    seen, final = batches.get_batch(api, batch_id), frames_of(socket, "batch_completed")[-1]
    assert {name: final[name] for name in ("status", "counts", "cost", "progress_percentage", "usage", "run", "finished_at")} == {
        name: seen[name] for name in ("status", "counts", "cost", "progress_percentage", "usage", "run", "finished_at")
    }
    items = frames_of(socket, "batch_item")
    assert {(one["row"], one["job_id"], one["status"]) for one in items} == {
        (n, job_id_of_row(batch_id, n), "completed") for n in range(20)
    }
    versions = [frame["version"] for frame in socket.frames if frame["event"] != "batch_item"]
    assert versions == sorted(versions)
    assert all(set(one) >= {"event", "batch_id", "version", "at"} for one in socket.frames)


def test_a_late_subscriber_receives_the_end_at_once(api: Api) -> None:
    batch_id = batches.submit(api, 2)
    batches.settle(api)

    frames = connected_socket(api).send({"action": "subscribe", "batch_id": batch_id})

    assert [(frame["event"], frame["status"]) for frame in frames] == [("connected", "completed"), ("batch_completed", "completed")]


def test_a_subscription_continues_with_a_new_run(api: Api) -> None:
    """Versions keep growing, so a client keeping the highest version shows the new run."""
    api.container.provider.scripts[:1] = [Script(error=RequestRefused("No."))]
    batch_id, socket = batches.submit(api, 2), connected_socket(api)
    socket.send({"action": "subscribe", "batch_id": batch_id})
    batches.settle(api)
    first = frames_of(socket, "batch_completed")[-1]

    api.call("POST", f"/batches/{batch_id}/retry-failed", {})
    batches.settle(api)

    last = frames_of(socket, "batch_completed")[-1]
    assert (first["status"], last["status"]) == ("completed_with_failures", "completed")
    assert (last["run"], first["run"]) == (2, 1)
    assert last["version"] > first["version"]


def test_the_cancellation_of_a_batch_is_broadcast_by_a_task(api: Api) -> None:
    """The HTTP request itself sends no frames."""
    batch_id, socket = batches.submit(api, 3), connected_socket(api)
    socket.send({"action": "subscribe", "batch_id": batch_id})
    assert api.call("DELETE", f"/batches/{batch_id}").status in (200, 202)
    assert frames_of(socket, "batch_completed") == []

    batches.settle(api)

    final = frames_of(socket, "batch_completed")[-1]
    assert (final["status"], final["counts"]["cancelled"]) == ("cancelled", 3)


def test_row_frames_over_the_maximum_are_counted_as_left_out(api: Api) -> None:
    batch_id, socket = batches.submit(api, MAX_ROW_FRAMES + 10), connected_socket(api)
    batches.tasks(api)
    socket.send({"action": "subscribe", "batch_id": batch_id})
    while api.container.queues.depth("low"):
        work(api, "low")

    batches.count(api)

    [progress] = frames_of(socket, "batch_progress")
    assert progress["items_left_out"] == 10
    assert progress["counts"]["completed"] == MAX_ROW_FRAMES + 10
    assert [one["row"] for one in frames_of(socket, "batch_item")] == list(range(MAX_ROW_FRAMES))


# ---- access


def test_a_batch_not_visible_to_the_caller_cannot_be_subscribed_to(api: Api) -> None:
    """This covers a colleague, another tenant, and a ticket limited to named jobs."""
    batch_id = batches.submit(api, 1)
    job_id = api.submit()
    ticket = api.call("POST", "/stream-tickets", {"jobs": [job_id]}).json["ticket"]
    sockets = [connected_socket(api, "colleague", "a"), connected_socket(api, "stranger", "b"), Socket(api, "c")]
    assert sockets[-1].connect(ticket=ticket) == 200

    for socket in sockets:
        [frame] = socket.send({"action": "subscribe", "batch_id": batch_id, "id": "q"})
        assert (frame["event"], frame["code"], frame["reply_to"]) == ("error", "batch_not_found", "q")
    assert api.container.subscriptions.for_job(batch_id) == []


def test_operators_and_unlimited_tickets_can_subscribe_to_a_batch(api: Api) -> None:
    batch_id = batches.submit(api, 1)
    ticket = api.call("POST", "/stream-tickets", {}).json["ticket"]
    reader = Socket(api, "b")
    assert reader.connect(ticket=ticket) == 200

    for socket in (connected_socket(api, "operator", "a"), reader):
        assert socket.send({"action": "subscribe", "batch_id": batch_id})[0]["event"] == "connected"


def test_a_key_of_all_tenants_must_name_the_tenant_of_a_batch(api: Api) -> None:
    batch_id = batches.submit(api, 1)
    api.change_key("stranger", all_tenants=True)
    socket = connected_socket(api, "stranger")

    [unnamed] = socket.send({"action": "subscribe", "batch_id": batch_id})
    [named] = socket.send({"action": "subscribe", "batch_id": batch_id, "tenant": "acme"})

    assert (unnamed["code"], named["event"]) == ("batch_not_found", "connected")


@pytest.mark.parametrize("changes", [{"revoked_at": 1}, {"user": "bob"}, {"tenant": "other"}])
def test_a_key_without_access_receives_no_more_frames(api: Api, changes: dict[str, Any]) -> None:
    batch_id, socket = batches.submit(api, 2), connected_socket(api)
    socket.send({"action": "subscribe", "batch_id": batch_id})
    api.change_key("user", **changes)
    before = len(socket.frames)

    batches.settle(api)

    assert len(socket.frames) == before


def test_batch_frames_contain_no_prompts_or_outputs(api: Api) -> None:
    """A key demoted to viewer still receives statuses and counts."""
    batch_id, socket = batches.submit(api, ["a secret prompt"]), connected_socket(api)
    socket.send({"action": "subscribe", "batch_id": batch_id})
    api.change_key("user", role=Role.VIEWER)

    batches.settle(api)

    assert frames_of(socket, "batch_completed")
    assert "secret" not in str(socket.frames)
    assert "all of it" not in str(socket.frames)


# ---- closed sockets and failures


def test_no_frames_are_sent_after_unsubscribing_or_disconnecting(api: Api) -> None:
    batch_id, first, second = batches.submit(api, 2), connected_socket(api), connected_socket(api, name="c2")
    for socket in (first, second):
        socket.send({"action": "subscribe", "batch_id": batch_id})
    first.send({"action": "unsubscribe", "batch_id": batch_id})
    second.disconnect()
    assert api.container.subscriptions.for_job(batch_id) == []

    batches.settle(api)

    assert [len(first.frames), len(second.frames)] == [1, 1]


def test_a_gone_socket_is_removed_and_a_busy_socket_is_served_later(api: Api) -> None:
    """Neither failure affects the row counts or the other subscribers."""
    batch_id = batches.submit(api, 2)
    gone, busy, well = (connected_socket(api, name=name) for name in ("gone", "busy", "well"))
    for socket in (gone, busy, well):
        socket.send({"action": "subscribe", "batch_id": batch_id})
    api.container.sockets.gone.add("gone")
    api.container.sockets.busy["busy"] = 1

    batches.settle(api)

    assert batches.get_batch(api, batch_id)["status"] == "completed"
    assert {one.connection_id for one in api.container.subscriptions.for_job(batch_id)} == {"busy", "well"}
    assert api.container.connections.get("gone") is None
    for socket in (busy, well):
        assert frames_of(socket, "batch_completed")


@pytest.mark.parametrize(("port", "method"), [("subscriptions", "for_job"), ("api_keys", "key"), ("sockets", "post")])
@pytest.mark.parametrize("error", [None, RuntimeError])
def test_rows_are_counted_when_subscribers_cannot_be_notified(api: Api, port: str, method: str, error: type[Exception] | None) -> None:
    batch_id, socket = batches.submit(api, 2), connected_socket(api)
    socket.send({"action": "subscribe", "batch_id": batch_id})
    batches.tasks(api)
    work(api, "low")
    api.container.clock.advance(60)

    more = {"error": error} if error is not None else {}
    with refusing(getattr(api.container, port), method, 10**6, **more):
        batches.settle(api)

    assert api.container.counters.counters[counter_key(batch_id)]["completed"] == 2
    assert batches.get_batch(api, batch_id)["finished_at"] is not None
    assert socket.send({"action": "subscribe", "batch_id": batch_id})[-1]["event"] == "batch_completed"


def test_a_replayed_change_stream_broadcasts_the_same_versions(api: Api) -> None:
    """Versions come from the records, so a client keeping the highest shows the same state."""
    batch_id, socket = batches.submit(api, 2), connected_socket(api)
    socket.send({"action": "subscribe", "batch_id": batch_id})
    batches.settle(api)
    final = frames_of(socket, "batch_completed")[-1]

    batches.count(api)

    assert {**socket.frames[-3], "at": 0, "items_left_out": 0} == {**final, "at": 0, "items_left_out": 0}
    assert frames_of(socket, "batch_item")[-1]["version"] == frames_of(socket, "batch_item")[1]["version"]


def test_a_later_change_to_an_ended_row_is_not_broadcast(api: Api) -> None:
    """The end of the row was broadcast before."""
    batch_id, socket = batches.submit(api, 1), connected_socket(api)
    socket.send({"action": "subscribe", "batch_id": batch_id})
    batches.settle(api)
    job, items = api.job(job_id_of_row(batch_id, 0)), len(frames_of(socket, "batch_item"))

    api.module.count_jobs({"Records": [change(job, replace(job, tags=("late",), version=job.version + 1))]}, CONTEXT)

    assert len(frames_of(socket, "batch_item")) == items


@pytest.mark.parametrize(
    "message",
    [
        {"action": "subscribe", "batch_id": 7},
        {"action": "subscribe", "batch_id": "x" * 100},
        {"action": "subscribe", "batch_id": "batch_1", "job_id": "job_1"},
        {"action": "subscribe", "batch_id": "batch_1", "offset": 0},
        {"action": "cancel", "batch_id": "batch_1"},
        {"action": "ping", "batch_id": "batch_1"},
    ],
)
def test_an_invalid_message_gets_an_error_frame(api: Api, message: Any) -> None:
    [frame] = connected_socket(api).send(message)

    assert (frame["event"], frame["code"]) == ("error", "invalid_request")


def test_a_batch_subscription_counts_towards_the_limit(api: Api) -> None:
    socket = connected_socket(api)
    for _ in range(50):
        socket.send({"action": "subscribe", "job_id": api.submit()})

    [frame] = socket.send({"action": "subscribe", "batch_id": batches.submit(api, 1)})

    assert frame["code"] == "invalid_request"


def test_job_and_batch_subscriptions_can_share_one_connection(api: Api) -> None:
    """The text of a row is still assembled correctly."""
    batch_id, socket = batches.submit(api, 1), connected_socket(api)
    batches.tasks(api)
    job_id = job_id_of_row(batch_id, 0)
    socket.send({"action": "subscribe", "batch_id": batch_id})
    socket.send({"action": "subscribe", "job_id": job_id})

    batches.settle(api)

    assembly = TextAssembler()
    for frame in socket.frames:
        if frame.get("job_id") == job_id:
            assembly.receive(frame)
    assert assembly.text == "all of it"
    assert assembly.done
