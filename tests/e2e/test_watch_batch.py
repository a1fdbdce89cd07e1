"""A batch followed over one WebSocket of the laptop cloud.

The client keeps the highest version, and subscribes again after a silence.
"""

from __future__ import annotations

import time
from typing import Any

from tests.e2e.stack import TIMEOUT, Api, Model, Stack
from tests.e2e.subscribers import SILENCE_SECONDS, Socket

ROWS = 20
Frame = dict[str, Any]


def follow(socket: Socket, batch_id: str, rows: int) -> tuple[list[Frame], dict[int, Frame]]:
    """Return the states until the end, and the newest frame of each row.

    Frames of rows may come after the end of the batch.
    """
    states, items, deadline = list[Frame](), dict[int, Frame](), time.monotonic() + TIMEOUT
    socket.send({"action": "subscribe", "batch_id": batch_id})
    connected = False
    while time.monotonic() < deadline:
        try:
            frame = socket.receive(SILENCE_SECONDS)
        except TimeoutError:
            socket.send({"action": "subscribe", "batch_id": batch_id})
            continue
        assert frame["batch_id"] == batch_id, frame
        connected = connected or frame["event"] == "connected"
        if frame["event"] == "batch_item":
            if frame["version"] >= items.get(frame["row"], frame)["version"]:
                items[frame["row"]] = frame
        elif not states or frame["version"] >= states[-1]["version"]:
            states.append(frame)
        if states and states[-1]["event"] == "batch_completed" and len(items) == rows:
            assert connected, "nothing answered the subscription"  # a state of the change stream may come before the answer
            return states, items
    raise AssertionError(f"the batch has not ended: {states[-1:]}, rows {sorted(items)}")


def test_batch_subscriber_receives_every_row_and_the_end(stack: Stack, api: Api, model: Model) -> None:
    model.reply("Noted.")
    with Socket(stack) as socket:
        batch_id = api.call("POST", "/batches", {"items": [f"Number {n}." for n in range(ROWS)], "config": model.config}).json()["batch_id"]

        states, items = follow(socket, batch_id, ROWS)

    final, record = states[-1], api.get(f"/batches/{batch_id}")
    for name in ("status", "counts", "cost", "usage", "progress_percentage", "finished_at"):
        assert final[name] == record[name], name
    assert final["status"] == "completed"
    assert sorted(items) == list(range(ROWS))
    assert {frame["status"] for frame in items.values()} == {"completed"}
    for row in api.get(f"/batches/{batch_id}", detailed="true")["data"]:
        assert (items[row["row"]]["job_id"], items[row["row"]]["cost"]) == (row["job_id"], row["cost"])


def test_batch_of_another_tenant_cannot_be_subscribed(stack: Stack, api: Api, model: Model) -> None:
    model.reply("Noted.")
    batch_id = api.call("POST", "/batches", {"items": ["one"], "config": model.config}).json()["batch_id"]

    with Socket(stack, "other_user") as stranger:
        refused = stranger.ask({"action": "subscribe", "batch_id": batch_id, "id": 1})

    assert (refused["event"], refused["code"], refused["reply_to"]) == ("error", "batch_not_found", 1)
