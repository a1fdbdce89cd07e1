"""A batch watched over one WebSocket of the laptop cloud, by a client that keeps the rules: the highest version wins, and it asks again."""

from __future__ import annotations

import time
from typing import Any

from tests.e2e.cloud import PATIENCE, Api, Model, Stack
from tests.e2e.watchers import ASK_AGAIN, Socket

ROWS = 20
Frame = dict[str, Any]


def watch(socket: Socket, batch_id: str, rows: int) -> tuple[list[Frame], dict[int, Frame]]:
    """The states until the end, and the newest frame of each row; rows may be told after the end of the batch."""
    states, items, deadline = list[Frame](), dict[int, Frame](), time.monotonic() + PATIENCE
    socket.send({"action": "subscribe", "batch_id": batch_id})
    while time.monotonic() < deadline:
        try:
            frame = socket.receive(ASK_AGAIN)
        except TimeoutError:
            socket.send({"action": "subscribe", "batch_id": batch_id})
            continue
        assert frame["batch_id"] == batch_id, frame
        if frame["event"] == "batch_item":
            if frame["version"] >= items.get(frame["row"], frame)["version"]:
                items[frame["row"]] = frame
        elif not states or frame["version"] >= states[-1]["version"]:
            states.append(frame)
        if states and states[-1]["event"] == "batch_completed" and len(items) == rows:
            return states, items
    raise AssertionError(f"not told: {states[-1:]}, rows {sorted(items)}")


def test_batch_subscriber_receives_every_row_and_the_end(stack: Stack, api: Api, model: Model) -> None:
    model.say("Noted.")
    with Socket(stack) as socket:
        made = api.call("POST", "/batches", {"items": [f"Number {n}." for n in range(ROWS)], "config": model.config}).json()

        states, items = watch(socket, made["batch_id"], ROWS)

    assert states[0]["event"] == "connected"
    final, record = states[-1], api.get(f"/batches/{made['batch_id']}")
    for name in ("status", "counts", "cost", "usage", "progress_percentage", "finished_at"):
        assert final[name] == record[name], name
    assert final["status"] == "completed"
    assert sorted(items) == list(range(ROWS))
    assert {frame["status"] for frame in items.values()} == {"completed"}
    for row in api.get(f"/batches/{made['batch_id']}", detailed="true")["data"]:
        assert (items[row["row"]]["job_id"], items[row["row"]]["cost"]) == (row["job_id"], row["cost"])


def test_batch_of_another_tenant_cannot_be_subscribed(stack: Stack, api: Api, model: Model) -> None:
    model.say("Noted.")
    made = api.call("POST", "/batches", {"items": ["one"], "config": model.config}).json()

    with Socket(stack, "other_user") as stranger:
        refused = stranger.ask({"action": "subscribe", "batch_id": made["batch_id"], "id": 1})

    assert (refused["event"], refused["code"], refused["reply_to"]) == ("error", "batch_not_found", 1)
